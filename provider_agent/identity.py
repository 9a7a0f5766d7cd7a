"""Who this node is: its chain key, and the X25519 key to which the gateway seals job keys."""

import base64
import binascii
import os
from dataclasses import dataclass, field
from pathlib import Path

from nacl.exceptions import CryptoError
from nacl.public import PrivateKey, SealedBox

from everlease.chain.keys import Key, load_keystore, raw_key
from everlease.chain.typed_data import Domain, NodeHello, node_hello_digest
from everlease.store.sealing import JobKeys
from everlease.wire.commands import Start
from everlease.wire.node import Challenge
from provider_agent.errors import ConfigurationRefused, StepFailed
from provider_agent.settings import AgentSettings


@dataclass(frozen=True)
class Identity:
    """``provider`` and ``key.address`` in lower case; ``sealing`` never leaves this host."""

    key: Key
    provider: str
    sealing: PrivateKey = field(repr=False)

    @property
    def sealing_public(self) -> str:
        """The X25519 public key, base64."""
        return base64.b64encode(bytes(self.sealing.public_key)).decode("ascii")

    def sign_hello(self, challenge: Challenge) -> str:
        """The signature that admits this node: over nonce, node, provider, sealing key, under the escrow's domain."""
        hello = NodeHello(challenge.nonce, self.key.address, self.provider, bytes(self.sealing.public_key))
        return self.key.sign(node_hello_digest(Domain(challenge.chain_id, challenge.escrow), hello))

    def open_keys(self, start: Start, chain_id: int, escrow: str) -> JobKeys:
        """The job's keys out of their sealed boxes, in memory only. Raises StepFailed if they are not for this node."""
        box = SealedBox(self.sealing)
        try:
            keys = {number: box.decrypt(base64.b64decode(sealed)) for number, sealed in start.keys.items()}
            secret = box.decrypt(base64.b64decode(start.dedup_secret))
            return JobKeys(chain_id, escrow, start.job_id, start.generation, keys, secret)
        except (CryptoError, binascii.Error, ValueError) as error:
            raise StepFailed("the job's keys are not sealed to this node's key") from error


def load_identity(settings: AgentSettings, chain_id: int) -> Identity:
    """The node's keys; the sealing key is made at the first start. Raises ConfigurationRefused, KeyRefused."""
    if settings.keystore is not None:
        key = load_keystore(settings.keystore, _password(settings))
    elif settings.node_key is not None:
        key = raw_key(settings.node_key.get_secret_value(), chain_id)
    else:
        raise ConfigurationRefused("the node has no key: set EVERLEASE_AGENT_KEYSTORE to a geth keystore file")
    return Identity(key, settings.provider.lower(), _sealing_key(settings.data_dir / "sealing.key"))


def _password(settings: AgentSettings) -> str:
    if settings.keystore_password is None and settings.keystore_password_file is not None:
        return settings.keystore_password_file.read_text(encoding="utf-8").rstrip("\n")
    return settings.keystore_password.get_secret_value() if settings.keystore_password else ""


def _sealing_key(path: Path) -> PrivateKey:
    """Read the key, or make it: written whole under another name first, mode 0600."""
    try:
        return PrivateKey(path.read_bytes())
    except FileNotFoundError:
        pass
    key = PrivateKey.generate()
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    part = path.with_name(f"{path.name}.new")
    part.unlink(missing_ok=True)
    handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.write(handle, bytes(key))
        os.fsync(handle)
    finally:
        os.close(handle)
    part.replace(path)
    return key
