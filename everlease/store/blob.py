"""Plain blobs as blocks: images and source branches, which are the same for many jobs and not secret.

Unlike checkpoint blocks they are not sealed, so equal parts are stored once for all jobs. The root block is canonical
JSON `{"blob": 1, "blocks": [CID, …], "size": n}`; every block but the last holds BLOB_BLOCK_BYTES.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from everlease.domain.manifest import CID
from everlease.store.base import BlockStore, get_block
from everlease.store.cid import cid_of, parse_cid
from everlease.store.errors import BlockCorrupt, InvalidCid, StoreFull
from everlease.store.packs import FULL_ERRNOS

BLOB_BLOCK_BYTES = 1 << 20
_BATCH = 8


@dataclass(frozen=True, slots=True)
class Blob:
    """A blob's root, its bytes and its blocks in order."""

    root: CID
    size: int
    blocks: tuple[CID, ...]


def put_blob(store: BlockStore, source: Path) -> Blob:
    """Store a file's blocks that are not there yet, and its root."""
    blocks: list[CID] = []
    size = 0
    with source.open("rb") as file:
        while batch := [data for _ in range(_BATCH) if (data := file.read(BLOB_BLOCK_BYTES))]:
            named = [(cid_of(data), data) for data in batch]
            present = store.has([cid for cid, _ in named])
            store.put_many([(cid, data) for cid, data in named if cid not in present])
            blocks.extend(cid for cid, _ in named)
            size += sum(map(len, batch))
    body = _encode(size, blocks)
    root = cid_of(body)
    store.put_many([(root, body)])
    return Blob(root, size, tuple(blocks))


def read_blob(store: BlockStore, root: CID) -> Blob:
    """The blob named by `root`, without its content. Raises BlockNotFound or BlockCorrupt."""
    body = get_block(store, root)
    try:
        fields = json.loads(body)
        size, blocks = fields["size"], tuple(parse_cid(cid) for cid in fields["blocks"])
        whole = type(size) is int and _encode(size, list(blocks)) == body
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, InvalidCid) as error:
        raise BlockCorrupt(root, "it is not the root of a blob") from error
    if not whole or len(blocks) != -(-size // BLOB_BLOCK_BYTES):
        raise BlockCorrupt(root, "it is not the root of a blob")
    return Blob(root, size, blocks)


def fetch_blob(store: BlockStore, root: CID, target: Path, *, max_bytes: int) -> Blob:
    """Write a blob to `target`, whole or not at all. Raises StoreFull above `max_bytes` or on a full disk."""
    blob = read_blob(store, root)
    if blob.size > max_bytes:
        raise StoreFull(f"the blob has {blob.size} bytes, the limit here is {max_bytes}")
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(8)}")
    try:
        with temporary.open("xb") as file:
            for expected, (cid, data) in zip(_lengths(blob), store.get_many(blob.blocks), strict=True):
                if len(data) != expected:
                    raise BlockCorrupt(cid, f"it holds {len(data)} bytes, the blob says {expected}")
                file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        if error.errno in FULL_ERRNOS:
            raise StoreFull(f"the disk of {target.parent} is full") from error
        raise
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return blob


def _lengths(blob: Blob) -> Iterator[int]:
    for number in range(len(blob.blocks)):
        yield min(BLOB_BLOCK_BYTES, blob.size - number * BLOB_BLOCK_BYTES)


def _encode(size: int, blocks: list[CID]) -> bytes:
    body = {"blob": 1, "blocks": blocks, "size": size}
    return json.dumps(body, sort_keys=True, separators=(",", ":")).encode("ascii")
