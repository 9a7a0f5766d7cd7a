"""CIDv1 of raw sha2-256 blocks (https://github.com/multiformats/cid): text `bafkrei…` and 36 bytes of binary."""

from __future__ import annotations

import base64
import binascii
import hashlib

from everlease.domain.manifest import CID
from everlease.store.errors import InvalidCid

PREFIX = b"\x01\x55\x12\x20"
"""version 1, raw codec, sha2-256, 32 bytes."""

BINARY_BYTES = len(PREFIX) + 32
TEXT_CHARS = 59
_LAST_CHARS = "aeimquy4"


def cid_of(data: bytes) -> CID:
    """The CID that names `data`."""
    return from_digest(hashlib.sha256(data).digest())


def from_digest(digest: bytes) -> CID:
    """The CID of a block with this sha2-256 digest (32 bytes)."""
    return CID("b" + base64.b32encode(PREFIX + digest).decode("ascii").rstrip("=").lower())


def digest_of(cid: str) -> bytes:
    """The sha2-256 digest in a CID. Raises InvalidCid for any other version, codec, hash or base."""
    # 58 characters carry 290 bits for 288: the last two are zero, or one block would have four names.
    if len(cid) != TEXT_CHARS or cid[0] != "b" or not cid.islower() or cid[-1] not in _LAST_CHARS:
        raise InvalidCid(cid)
    try:
        binary = base64.b32decode(cid[1:].upper() + "======")
    except (binascii.Error, ValueError) as error:
        raise InvalidCid(cid) from error
    if binary[: len(PREFIX)] != PREFIX or len(binary) != BINARY_BYTES:
        raise InvalidCid(cid)
    return binary[len(PREFIX) :]


def parse_cid(text: str) -> CID:
    """`text` as a CID, checked. Raises InvalidCid."""
    digest_of(text)
    return CID(text)


def to_binary(cid: str) -> bytes:
    """The 36 bytes of a CID as CAR files and packs hold it."""
    return PREFIX + digest_of(cid)


def from_binary(binary: bytes) -> CID:
    """The CID in 36 bytes. Raises InvalidCid."""
    if len(binary) != BINARY_BYTES or not binary.startswith(PREFIX):
        raise InvalidCid(binary.hex())
    return from_digest(binary[len(PREFIX) :])


def matches(cid: str, data: bytes) -> bool:
    """Whether `data` is the block that `cid` names."""
    return digest_of(cid) == hashlib.sha256(data).digest()
