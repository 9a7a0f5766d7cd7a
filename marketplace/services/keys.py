"""The key service: one key per job and generation, wrapped at rest, sealed to whoever may have it.

At rest a key is nonce (12 bytes) ‖ AES-256-GCM under the master key, bound to (job, generation). In flight it is a
libsodium sealed box to the reader's X25519 key, base64.
"""

import base64
import binascii
import hmac
import os
import secrets
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from nacl.public import PublicKey, SealedBox

from everlease.db import Tx
from everlease.db import keys as store

DEDUP_GENERATION = 0
_NONCE_BYTES = 12
_KEY_BYTES = 32
_FINGERPRINT = b"everlease/master-key-fingerprint/1"


class MasterKeyInvalid(Exception):
    """The master key's file can't be used."""

    retryable = False


class OtherMasterKey(MasterKeyInvalid):
    """The database's job keys are wrapped under another master key."""

    def __init__(self) -> None:
        super().__init__(
            "the job keys in this database are wrapped under another master key: copy the file that"
            " EVERLEASE_MARKETPLACE_MASTER_KEY_FILE names from a replica that runs, or from the backup"
        )


class KeyUnavailable(Exception):
    """A generation has no key, or its wrapping was made under another master key."""

    retryable = False

    def __init__(self, job_id: str, generation: int, why: str) -> None:
        super().__init__(f"generation {generation} of job {job_id} {why}")
        self.job_id = job_id
        self.generation = generation


class InvalidSealingKey(ValueError):
    """Not an X25519 public key in base64."""

    retryable = False

    def __init__(self) -> None:
        super().__init__("the public key is not 32 bytes of base64 (X25519)")


def load_master_key(path: Path) -> bytes:
    """Read the 32-byte key, or create it (mode 0600) where there is none; two starters agree on one file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        fresh = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(secrets.token_bytes(_KEY_BYTES))
                file.flush()
                os.fsync(file.fileno())
            with suppress(FileExistsError):
                os.link(fresh, path)
        finally:
            fresh.unlink()
    if path.stat().st_mode & 0o077:
        raise MasterKeyInvalid(f"{path} is readable by others: chmod 600 it")
    key = path.read_bytes()
    if len(key) != _KEY_BYTES:
        raise MasterKeyInvalid(f"{path} holds {len(key)} bytes, a master key has {_KEY_BYTES}")
    return key


def parse_sealing_key(text: str) -> PublicKey:
    """A public key from base64 (either alphabet); raises InvalidSealingKey."""
    try:
        raw = base64.b64decode(text.replace("-", "+").replace("_", "/"), validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidSealingKey from error
    if len(raw) != _KEY_BYTES:
        raise InvalidSealingKey
    return PublicKey(raw)


class KeyService:
    """Creates, unwraps and seals job keys. Holds the master key.

    ``is_other``: the database was seen to belong to another master key; the process ends then.
    """

    def __init__(self, master_key: bytes) -> None:
        self.is_other = False
        self._cipher = AESGCM(master_key)
        # HKDF-SHA256 (RFC 5869) with a label of its own: it tells neither the key nor any other output of it.
        self._fingerprint = HKDF(hashes.SHA256(), _KEY_BYTES, salt=None, info=_FINGERPRINT).derive(master_key)

    def check(self, tx: Tx) -> None:
        """Raise OtherMasterKey unless this is the database's master key. The first that asks makes its own that."""
        if not hmac.compare_digest(store.fingerprint(tx, self._fingerprint), self._fingerprint):
            self.is_other = True
            raise OtherMasterKey

    def ensure(self, tx: Tx, job_id: str, generation: int) -> None:
        """Create the generation's key unless it exists; two callers end up with the same key. Raises OtherMasterKey.

        It checks anew: a process may have started while the database was away.
        """
        self.check(tx)
        if generation not in store.wrapped_keys(tx, job_id, [generation]):
            nonce = os.urandom(_NONCE_BYTES)
            wrapped = nonce + self._cipher.encrypt(nonce, secrets.token_bytes(_KEY_BYTES), _bound(job_id, generation))
            store.put_if_absent(tx, job_id, generation, wrapped)

    def sealed(self, tx: Tx, job_id: str, generations: Collection[int], to: PublicKey) -> dict[int, str]:
        """Those generations' keys, each sealed to ``to``; raises KeyUnavailable."""
        wrapped = store.wrapped_keys(tx, job_id, generations)
        box = SealedBox(to)
        sealed = {}
        for generation in sorted(generations):
            if generation not in wrapped:
                raise KeyUnavailable(job_id, generation, "has no key")
            plain = self._unwrap(job_id, generation, wrapped[generation])
            sealed[generation] = base64.b64encode(box.encrypt(plain)).decode()
        return sealed

    def plain(self, tx: Tx, job_id: str, generation: int) -> bytes:
        """A generation's key (32 bytes), for reading manifests in this process; raises KeyUnavailable."""
        wrapped = store.wrapped_keys(tx, job_id, [generation])
        if generation not in wrapped:
            raise KeyUnavailable(job_id, generation, "has no key")
        return self._unwrap(job_id, generation, wrapped[generation])

    def _unwrap(self, job_id: str, generation: int, wrapped: bytes) -> bytes:
        try:
            return self._cipher.decrypt(wrapped[:_NONCE_BYTES], wrapped[_NONCE_BYTES:], _bound(job_id, generation))
        except InvalidTag:
            raise KeyUnavailable(job_id, generation, "was wrapped under another master key") from None


def _bound(job_id: str, generation: int) -> bytes:
    return f"everlease/job-key/1 {job_id} {generation}".encode()
