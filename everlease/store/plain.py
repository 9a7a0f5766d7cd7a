"""Files without secrets as plain blocks: container images, branches. Equal parts are stored once for all jobs.

The list of blocks is canonical JSON: {"blocks": [[cid, length], …], "sha256": hex of the file, "size": bytes,
"version": 1}. Its CID names the file.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from everlease.domain.manifest import CID
from everlease.store.base import MAX_BLOCK_BYTES, BlockStore, get_block
from everlease.store.cid import cid_of, parse_cid
from everlease.store.errors import BlockCorrupt, Cancelled, InvalidCid, ManifestInvalid, StoreError, StoreFull
from everlease.store.packs import FULL_ERRNOS

PLAIN_BLOCK_BYTES = 1 << 20
_BATCH = 16
_HEAD = b'{"blocks":['
_BLOCK = re.compile(rb'\["(b[a-z2-7]{58})",([1-9][0-9]{0,7})\],?')
_TAIL = re.compile(rb'\],"sha256":"([0-9a-f]{64})","size":(0|[1-9][0-9]{0,17}),"version":1\}')


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
    """The list of a file's blocks. Raises BlockNotFound, BlockCorrupt, ManifestInvalid.

    The form is fixed to the byte, so it is read by that and not as any JSON: a list that nests or names huge numbers
    costs nothing but the look at it.
    """
    body = get_block(store, cid)
    if not body.startswith(_HEAD):
        raise ManifestInvalid(f"block {cid} is not a list of plain blocks")
    blocks: list[tuple[CID, int]] = []
    at, total = len(_HEAD), 0
    while found := _BLOCK.match(body, at):
        name, length = found.group(1).decode("ascii"), int(found.group(2))
        if length > MAX_BLOCK_BYTES:
            raise ManifestInvalid(f"the list {cid} has a block of {length} bytes")
        try:
            blocks.append((parse_cid(name), length))
        except InvalidCid as error:
            raise ManifestInvalid(f"the list {cid} names {error}") from error
        at, total = found.end(), total + length
    tail = _TAIL.fullmatch(body, at)
    if tail is None or body[at - 1 : at] == b",":
        raise ManifestInvalid(f"block {cid} is not a list of plain blocks of version 1")
    size = int(tail.group(2))
    if total != size:
        raise ManifestInvalid(f"the blocks in {cid} do not add up to {size} bytes")
    return PlainFile(cid, size, tail.group(1).decode("ascii"), tuple(blocks))


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
