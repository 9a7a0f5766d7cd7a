"""Blocks back into files: everything is verified in a directory of its own before anyone can see it."""

from __future__ import annotations

import os
import secrets
import shutil
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from glob import escape
from pathlib import Path
from threading import Event
from typing import NamedTuple

from everlease.domain.manifest import CID, FileEntry, Manifest, ManifestError, check_manifest
from everlease.store.base import BlockStore, check_block
from everlease.store.errors import BlockCorrupt, Cancelled, KeyMissing, ManifestInvalid, StoreFull, TargetExists
from everlease.store.packs import FULL_ERRNOS
from everlease.store.pipeline.known import BlockRecord
from everlease.store.sealing import JobKeys

_BATCH_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class Restored:
    """`known` lets the next snapshot on this host skip what it just restored. Bytes are of plaintext."""

    known: dict[bytes, BlockRecord]
    logical_bytes: int
    fetched_blocks: int


class _Place(NamedTuple):
    path: Path
    offset: int
    length: int


class _Wanted(NamedTuple):
    cid: CID
    generation: int
    places: list[_Place]


def restore(
    manifest: Manifest,
    store: BlockStore,
    keys: JobKeys,
    target: Path,
    *,
    max_bytes: int,
    workers: int = 2,
    cancel: Event | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> Restored:
    """Write a verified manifest's files to `target`, which must be absent or empty; it appears whole or not at all.

    `max_bytes` bounds the logical size. Owners are set when running as root. `progress` gets bytes written so far.
    Raises BlockNotFound, BlockCorrupt, KeyMissing, ManifestInvalid, StoreFull, TargetExists, Cancelled.
    """
    _check(manifest, keys, max_bytes)
    if target.is_symlink() or (target.exists() and (not target.is_dir() or any(target.iterdir()))):
        raise TargetExists(f"{target} already exists and is not an empty directory")
    target.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".restore-{target.name}-"
    for stale in target.parent.glob(f"{escape(prefix)}*"):
        shutil.rmtree(stale)
    building = target.parent / (prefix + secrets.token_hex(8))
    building.mkdir(mode=0o700)
    try:
        _create(building, manifest)
        wanted = _wanted(building, manifest)
        known = _fill(wanted, store, keys, workers, cancel or Event(), progress)
        _finish(building, manifest)
        building.rename(target)
    except OSError as error:
        shutil.rmtree(building, ignore_errors=True)
        if error.errno in FULL_ERRNOS:
            raise StoreFull(f"the disk of {target.parent} is full; the restore was undone") from error
        raise
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        raise
    return Restored(known, manifest.logical_bytes, len(wanted))


def _check(manifest: Manifest, keys: JobKeys, max_bytes: int) -> None:
    try:
        check_manifest(manifest)
    except ManifestError as error:
        raise ManifestInvalid(error.reason) from error
    if manifest.logical_bytes > max_bytes:
        raise ManifestInvalid(f"the checkpoint has {manifest.logical_bytes} bytes, the limit here is {max_bytes}")
    for generation in manifest.generations():
        if generation not in keys.keys:
            raise KeyMissing(generation)


def _create(root: Path, manifest: Manifest) -> None:
    """Directories and empty, sparse files. No symlink exists yet, so no path can lead out of `root`."""
    for entry in manifest.entries:
        path = root / entry.path
        if entry.kind == "directory":
            path.mkdir(parents=True, exist_ok=True, mode=0o700)
            continue
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if entry.kind == "file":
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            try:
                os.ftruncate(descriptor, entry.size)
            finally:
                os.close(descriptor)


def _wanted(root: Path, manifest: Manifest) -> list[_Wanted]:
    """Each distinct block with every place it goes to, in file order."""
    wanted: dict[tuple[CID, int], _Wanted] = {}
    for entry in manifest.entries:
        path = root / entry.path
        offset = 0
        for ref in entry.blocks:
            if ref.cid is not None:
                key = (ref.cid, ref.generation)
                wanted.setdefault(key, _Wanted(ref.cid, ref.generation, [])).places.append(
                    _Place(path, offset, ref.length)
                )
            offset += ref.length
    return list(wanted.values())


def _fill(
    wanted: list[_Wanted],
    store: BlockStore,
    keys: JobKeys,
    workers: int,
    cancel: Event,
    progress: Callable[[int], None],
) -> dict[bytes, BlockRecord]:
    known: dict[bytes, BlockRecord] = {}
    done = 0

    def run(batch: list[_Wanted]) -> tuple[dict[bytes, BlockRecord], int]:
        if cancel.is_set():
            raise Cancelled("the restore was cancelled")
        return _write_batch(batch, store, keys)

    with ThreadPoolExecutor(workers) as pool:
        pending: deque[Future[tuple[dict[bytes, BlockRecord], int]]] = deque()
        try:
            batches = _batches(wanted)
            while True:
                batch = next(batches, None)
                if batch is not None:
                    pending.append(pool.submit(run, batch))
                if not pending:
                    return known
                if batch is None or len(pending) > 2 * workers:
                    records, written = pending.popleft().result()
                    known.update(records)
                    done += written
                    progress(done)
        except BaseException:
            for future in pending:
                future.cancel()
            raise


def _batches(wanted: list[_Wanted]) -> Iterator[list[_Wanted]]:
    batch: list[_Wanted] = []
    size = 0
    for item in wanted:
        batch.append(item)
        size += item.places[0].length
        if size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _write_batch(batch: list[_Wanted], store: BlockStore, keys: JobKeys) -> tuple[dict[bytes, BlockRecord], int]:
    known: dict[bytes, BlockRecord] = {}
    written = 0
    current: Path | None = None
    descriptor = -1
    try:
        for item, (cid, stored) in zip(batch, store.get_many([item.cid for item in batch]), strict=True):
            length = item.places[0].length
            # AEAD alone would let a store swap two blocks of the job.
            check_block(cid, stored)
            payload = keys.open(cid, item.generation, stored, length)
            if any(place.length != len(payload) for place in item.places):
                raise BlockCorrupt(cid, f"it holds {len(payload)} bytes, the manifest says {length}")
            known[keys.fingerprint(payload)] = BlockRecord(cid, item.generation, length)
            for place in item.places:
                if place.path != current:
                    if descriptor >= 0:
                        os.close(descriptor)
                        descriptor = -1
                    descriptor = os.open(place.path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
                    current = place.path
                _write_all(descriptor, payload, place.offset)
                written += place.length
    finally:
        if descriptor >= 0:
            os.close(descriptor)
    return known, written


def _write_all(descriptor: int, payload: bytes, offset: int) -> None:
    view = memoryview(payload)
    while view:
        count = os.pwrite(descriptor, view, offset)
        view = view[count:]
        offset += count


def _finish(root: Path, manifest: Manifest) -> None:
    """Symlinks, then owners, modes and times, deepest first so that a directory's own come last."""
    links = [entry for entry in manifest.entries if entry.kind == "symlink"]
    others = [entry for entry in manifest.entries if entry.kind != "symlink"]
    for entry in links:
        (root / entry.path).symlink_to(entry.target)
    for entry in [*links, *sorted(others, key=_depth, reverse=True)]:
        path = root / entry.path
        if os.geteuid() == 0:
            os.chown(path, entry.uid, entry.gid, follow_symlinks=False)
        if entry.kind != "symlink":
            path.chmod(entry.mode)
        os.utime(path, ns=(entry.mtime_ns, entry.mtime_ns), follow_symlinks=False)


def _depth(entry: FileEntry) -> int:
    return entry.path.count("/")
