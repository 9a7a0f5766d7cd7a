"""What a host remembers of blocks that are already stored: fingerprint → CID, generation, length."""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from everlease.domain.manifest import CID
from everlease.durable import fsync_directory
from everlease.store.cid import digest_of, from_digest

_MAGIC = b"EVKNOWN1"
_RECORD = struct.Struct(">32s32sII")


class BlockRecord(NamedTuple):
    """A stored block: its CID, the key generation it is sealed under, and its bytes of plaintext."""

    cid: CID
    generation: int
    length: int


KnownBlocks = Mapping[bytes, BlockRecord]
"""Keyed fingerprint of the plaintext (32 bytes, JobKeys.fingerprint) → the block that holds it."""


def save_known(path: Path, known: KnownBlocks) -> None:
    """Write the map to `path`, replacing it in one step."""
    rows = (_RECORD.pack(key, digest_of(record.cid), record.generation, record.length) for key, record in known.items())
    temporary = path.with_name(path.name + ".new")
    with temporary.open("wb") as file:
        file.write(_MAGIC + b"".join(rows))
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    fsync_directory(path.parent)


def load_known(path: Path) -> dict[bytes, BlockRecord]:
    """The map in `path`; empty where there is none or it is damaged, since it only saves work."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return {}
    if not data.startswith(_MAGIC) or (len(data) - len(_MAGIC)) % _RECORD.size:
        return {}
    rows = _RECORD.iter_unpack(data[len(_MAGIC) :])
    return {key: BlockRecord(from_digest(digest), generation, length) for key, digest, generation, length in rows}
