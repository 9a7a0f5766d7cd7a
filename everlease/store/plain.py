"""Files without secrets as plain blocks: container images, branches. Equal parts are stored once for all jobs.

The list of blocks is canonical JSON: {"blocks": [[cid, length], …], "sha256": hex of the file, "size": bytes,
"version": 1}. Its CID names the file.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from everlease.domain.manifest import CID
from everlease.store.base import MAX_BLOCK_BYTES, BlockStore, get_block
from everlease.store.cid import cid_of, parse_cid
from everlease.store.errors import BlockCorrupt, Cancelled, ManifestInvalid, StoreError, StoreFull
from everlease.store.packs import FULL_ERRNOS

PLAIN_BLOCK_BYTES = 1 << 20
_BATCH = 16


@dataclass(frozen=True, slots=True)
class PlainFile:
    """A file in the store: its name, size in bytes, sha-256 (hex) and its blocks in order as (CID, length)."""

    cid: CID
    size: int
    sha256: str
    blocks: tuple[tuple[CID, int], ...]


def upload_plain(store: BlockStore, source: Path, *, progress: Callable[[int], None] = lambda _: None) -> PlainFile:
    """Store a file; blocks already there are not sent again. `progress` gets the bytes so far. Raises StoreError."""
    digest, listed, done = hashlib.sha256(), list[tuple[CID, int]](), 0
    with source.open("rb") as file:
        while batch := [data for _ in range(_BATCH) if (data := file.read(PLAIN_BLOCK_BYTES))]:
            named = [(cid_of(data), data) for data in batch]
            present = store.has([cid for cid, _ in named])
            store.put_many([pair for pair in named if pair[0] not in present])
            for cid, data in named:
                digest.update(data)
                listed.append((cid, len(data)))
                done += len(data)
            progress(done)
    body = {"blocks": listed, "sha256": digest.hexdigest(), "size": done, "version": 1}
    encoded = json.dumps(body, sort_keys=True, separators=(",", ":")).encode("ascii")
    if len(encoded) > MAX_BLOCK_BYTES:
        raise StoreError(f"{source.name} has too many blocks for one list: {len(listed)}")
    cid = cid_of(encoded)
    store.put_many([(cid, encoded)])
    return PlainFile(cid, done, digest.hexdigest(), tuple(listed))


def read_plain(store: BlockStore, cid: CID) -> PlainFile:
    """The list of a file's blocks. Raises BlockNotFound, BlockCorrupt, ManifestInvalid."""
    try:
        body = json.loads(get_block(store, cid).decode("ascii"))
        blocks = tuple((parse_cid(name), int(length)) for name, length in body["blocks"])
        plain = PlainFile(cid, int(body["size"]), str(body["sha256"]), blocks)
    except StoreError:
        raise
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ManifestInvalid(f"block {cid} is not a list of plain blocks") from error
    if body.get("version") != 1 or any(not 0 < length <= MAX_BLOCK_BYTES for _, length in blocks):
        raise ManifestInvalid(f"block {cid} is not a list of plain blocks of version 1")
    if sum(length for _, length in blocks) != plain.size:
        raise ManifestInvalid(f"the blocks in {cid} do not add up to {plain.size} bytes")
    return plain


def fetch_plain(
    store: BlockStore,
    plain: PlainFile,
    target: Path,
    *,
    max_bytes: int,
    cancel: Event | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> None:
    """Write the file to `target`, verified block by block and as a whole; it appears whole or not at all.

    Raises BlockNotFound, BlockCorrupt, ManifestInvalid, StoreFull, Cancelled.
    """
    if plain.size > max_bytes:
        raise ManifestInvalid(f"the file has {plain.size} bytes, the limit here is {max_bytes}")
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.part")
    digest, done = hashlib.sha256(), 0
    try:
        with part.open("wb") as file:
            for data in _checked(store, plain):
                if cancel is not None and cancel.is_set():
                    raise Cancelled("the download was cancelled")
                file.write(data)
                digest.update(data)
                done += len(data)
                progress(done)
        if digest.hexdigest() != plain.sha256:
            raise BlockCorrupt(plain.cid, "its blocks do not make the file that it promises")
        os.replace(part, target)
    except OSError as error:
        if error.errno in FULL_ERRNOS:
            raise StoreFull(f"the disk is full; {target.name} was not written") from error
        raise
    finally:
        part.unlink(missing_ok=True)


def _checked(store: BlockStore, plain: PlainFile) -> Iterator[bytes]:
    fetched = store.get_many([cid for cid, _ in plain.blocks])
    for (cid, length), (_, data) in zip(plain.blocks, fetched, strict=True):
        if len(data) != length:
            raise BlockCorrupt(cid, f"it has {len(data)} bytes, the list says {length}")
        yield data
