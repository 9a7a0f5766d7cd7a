"""Keys: geth keystore v3 files (Web3 Secret Storage); raw ones from the environment on development chains only."""

import json
import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path

from eth_keyfile.keyfile import create_keyfile_json, decode_keyfile_json
from eth_keys.datatypes import PrivateKey

from everlease.chain.errors import KeyRefused, WrongPassword
from everlease.chain.typed_data import sign
from everlease.durable import fsync_directory

DEVELOPMENT_CHAINS = frozenset({1337, 31337})
_SCRYPT_ROUNDS = 2**18
"""geth's standard scrypt cost."""


@dataclass(frozen=True, slots=True)
class Key:
    """A secp256k1 key. ``address`` is lower case; the secret is not shown by repr."""

    secret: bytes = field(repr=False)
    address: str

    @classmethod
    def of(cls, secret: bytes) -> "Key":
        """The key with this 32-byte secret; raises KeyRefused where it is none."""
        try:
            return cls(secret, str(PrivateKey(secret).public_key.to_address()).lower())
        except Exception as error:
            raise KeyRefused("the private key is not a number that secp256k1 takes; it has 32 bytes") from error

    @classmethod
    def generate(cls) -> "Key":
        """A new random key."""
        return cls.of(secrets.token_bytes(32))

    def sign(self, digest: bytes) -> str:
        """Sign a 32-byte digest; see typed_data.sign."""
        return sign(self.secret, digest)


def load_keystore(path: Path, password: str) -> Key:
    """Read a keystore v3 file; raises KeyRefused with what to do."""
    try:
        content = json.loads(path.read_text("utf-8"))
        return Key.of(bytes(decode_keyfile_json(content, password)))
    except FileNotFoundError as error:
        raise KeyRefused(f"there is no key file {path}: create one or name another") from error
    except ValueError as error:
        if "MAC mismatch" in str(error):
            raise WrongPassword(path) from error
        raise KeyRefused(f"{path} is not a geth keystore v3 file") from error
    except (KeyError, TypeError, AttributeError, NotImplementedError) as error:
        raise KeyRefused(f"{path} is not a geth keystore v3 file") from error


def save_keystore(path: Path, key: Key, password: str, *, rounds: int = _SCRYPT_ROUNDS) -> None:
    """Write ``key`` as a keystore v3 file (mode 0600), whole or not at all; never over another file."""
    content = create_keyfile_json(key.secret, password, kdf="scrypt", iterations=rounds)
    content["address"] = key.address.removeprefix("0x")
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = path.parent / f".{path.name}.{secrets.token_hex(4)}"
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(content, file)
            file.flush()
            os.fsync(file.fileno())
        os.link(temporary, path)
    except FileExistsError as error:
        raise KeyRefused(f"{path} exists already and was left as it is") from error
    finally:
        temporary.unlink(missing_ok=True)
    fsync_directory(path.parent)


def raw_key(hexadecimal: str, chain_id: int) -> Key:
    """A key given as hex (from the environment); refused unless ``chain_id`` is a development chain's."""
    if chain_id not in DEVELOPMENT_CHAINS:
        raise KeyRefused(f"a raw private key is accepted on development chains only, not on chain {chain_id}")
    try:
        return Key.of(bytes.fromhex(hexadecimal.removeprefix("0x")))
    except ValueError as error:
        raise KeyRefused("the private key is not hexadecimal") from error
