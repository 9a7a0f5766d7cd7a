"""A block store in a directory: pack files and an index that survive a kill at any point."""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from threading import Lock

from everlease.domain.manifest import CID
from everlease.durable import fsync_directory
from everlease.store.base import check_block
from everlease.store.cid import digest_of, from_digest, matches
from everlease.store.errors import BlockCorrupt, BlockNotFound, StoreError, StoreFull, StoreLocked
from everlease.store.pack_index import Location, PackIndex
from everlease.store.packs import (
    FULL_ERRNOS,
    PackWriter,
    pack_numbers,
    pack_path,
    scan_pack,
)

PACK_BYTES = 256 << 20
BATCH_BYTES = 8 << 20
_GET_CHUNK = 64


class LocalBlockStore:
    """BlockStore under `root`, created if absent. One writing process at a time; readers may open it read-only.

    `on_step` is called with a name before each durable step; crash tests kill the process there.
    """

    def __init__(
        self,
        root: Path,
        *,
        pack_bytes: int = PACK_BYTES,
        read_only: bool = False,
        on_step: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._packs = root / "packs"
        self._pack_bytes = pack_bytes
        self._read_only = read_only
        self._on_step = on_step
        self._write_lock = Lock()
        self._readers: dict[int, int] = {}
        self._readers_lock = Lock()
        self._writer: PackWriter | None = None
        self._lock_file: int | None = None
        if not read_only:
            self._packs.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock_file = _lock(root)
            fsync_directory(root)
        try:
            self._index = self._open_index(root / "index.db")
            if not read_only:
                self._recover()
        except BaseException:
            self._unlock()
            raise

    def put_many(self, blocks: Iterable[tuple[CID, bytes]]) -> None:
        batch: dict[CID, bytes] = {}
        pending = 0
        for cid, data in blocks:
            check_block(cid, data)
            if cid not in batch:
                batch[cid] = data
                pending += len(data)
            if pending >= BATCH_BYTES:
                self._write(batch)
                batch, pending = {}, 0
        if batch:
            self._write(batch)

    def get_many(self, cids: Iterable[CID]) -> Iterator[tuple[CID, bytes]]:
        chunk: list[CID] = []
        for cid in cids:
            chunk.append(cid)
            if len(chunk) == _GET_CHUNK:
                yield from self._read(chunk)
                chunk = []
        yield from self._read(chunk)

    def has(self, cids: Iterable[CID]) -> set[CID]:
        by_digest = {digest_of(cid): cid for cid in cids}
        return {by_digest[digest] for digest in self._index.find(list(by_digest))}

    def delete(self, cids: Iterable[CID]) -> None:
        self._on_step("index-delete")
        self._index.remove([digest_of(cid) for cid in cids])

    def cids(self) -> Iterator[CID]:
        after = b""
        while page := self._index.page(after, 1000):
            yield from map(from_digest, page)
            after = page[-1]

    def size(self, cid: CID) -> int:
        place = self._index.find([digest_of(cid)]).get(digest_of(cid))
        if place is None:
            raise BlockNotFound(cid)
        return place.length

    def totals(self) -> tuple[int, int]:
        """(number of blocks, their stored bytes)."""
        return self._index.totals()

    def compact(self, max_dead_ratio: float = 0.5) -> int:
        """Copy the live blocks out of packs whose dead share is larger, remove those; returns bytes given back."""
        freed = 0
        live = self._index.packs()
        for number in pack_numbers(self._packs):
            path = pack_path(self._packs, number)
            total = path.stat().st_size
            with self._write_lock:
                if self._writer is None or number == self._writer.number:
                    continue
                if live.get(number, (0, 0))[0] >= (1 - max_dead_ratio) * total:
                    continue
                self._move_out(number)
                self._on_step("pack-unlink")
                path.unlink()
                self._forget_reader(number)
                fsync_directory(self._packs)
            freed += total
        return freed

    def close(self) -> None:
        with self._write_lock:
            if self._writer is not None:
                self._writer.close()
                self._writer = None
            for number in list(self._readers):
                self._forget_reader(number)
            self._index.close()
            self._unlock()

    def _write(self, batch: dict[CID, bytes]) -> None:
        """One durable batch: append, fsync, index. A failure at any point leaves nothing visible."""
        with self._write_lock:
            writer = self._current_writer()
            known = self._index.find([digest_of(cid) for cid in batch])
            fresh = {cid: data for cid, data in batch.items() if digest_of(cid) not in known}
            if not fresh:
                return
            start = writer.end
            rows: list[tuple[bytes, Location]] = []
            try:
                for cid, data in fresh.items():
                    self._on_step("append")
                    rows.append((digest_of(cid), Location(writer.number, writer.append(cid, data), len(data))))
                self._on_step("pack-fsync")
                writer.sync()
                self._on_step("index-commit")
                self._index.add(rows)
            except BaseException:
                writer.rewind(start)
                raise
            self._on_step("visible")

    def _current_writer(self) -> PackWriter:
        if self._writer is None:
            raise StoreError("the store is closed or was opened read-only")
        if self._writer.end >= self._pack_bytes:
            number = self._writer.number + 1
            self._on_step("pack-create")
            fresh = _writer(self._packs, number, 0)
            self._writer.close()
            self._writer = fresh
        return self._writer

    def _move_out(self, number: int) -> None:
        for digest, place in self._index.in_pack(number):
            writer = self._current_writer()
            cid = from_digest(digest)
            data = self._pread(place)
            if not matches(cid, data):
                # A rotten block is dropped: whoever needs it gets BlockNotFound and puts it again.
                self._index.remove([digest])
                continue
            self._on_step("compact-append")
            offset = writer.append(cid, data)
            writer.sync()
            self._on_step("compact-index")
            self._index.add([(digest, Location(writer.number, offset, place.length))])

    def _read(self, chunk: list[CID]) -> Iterator[tuple[CID, bytes]]:
        places = self._index.find([digest_of(cid) for cid in chunk])
        for cid in chunk:
            place = places.get(digest_of(cid))
            if place is None:
                raise BlockNotFound(cid)
            try:
                data = self._pread(place)
            except FileNotFoundError:
                # Compaction moved it between the two steps.
                place = self._index.find([digest_of(cid)]).get(digest_of(cid))
                if place is None:
                    raise BlockNotFound(cid) from None
                data = self._pread(place)
            if not matches(cid, data):
                raise BlockCorrupt(cid, "its bytes on disk do not hash to its name")
            yield cid, data

    def _pread(self, place: Location) -> bytes:
        with self._readers_lock:
            descriptor = self._readers.get(place.pack)
            if descriptor is None:
                descriptor = os.open(pack_path(self._packs, place.pack), os.O_RDONLY | os.O_CLOEXEC)
                self._readers[place.pack] = descriptor
            # A duplicate stays valid when compaction closes the cached one.
            descriptor = os.dup(descriptor)
        try:
            return os.pread(descriptor, place.length, place.offset)
        finally:
            os.close(descriptor)

    def _forget_reader(self, number: int) -> None:
        with self._readers_lock:
            descriptor = self._readers.pop(number, None)
            if descriptor is not None:
                os.close(descriptor)

    def _open_index(self, path: Path) -> PackIndex:
        lost = not path.exists()
        try:
            index = PackIndex(path, read_only=self._read_only)
        except sqlite3.DatabaseError as error:
            if self._read_only:
                raise StoreError(f"the index {path} can't be read; open the store for writing to rebuild it") from error
            for suffix in ("", "-wal", "-shm"):
                path.with_name(path.name + suffix).unlink(missing_ok=True)
            index, lost = PackIndex(path), True
        if lost and not self._read_only:
            for number in pack_numbers(self._packs):
                records = scan_pack(pack_path(self._packs, number))
                index.add((digest_of(cid), Location(number, offset, length)) for cid, offset, length in records)
        return index

    def _recover(self) -> None:
        """Cut torn tails, forget rows without bytes, remove packs no row names, open the last pack for appending."""
        for number, (_, end) in self._index.packs().items():
            path = pack_path(self._packs, number)
            size = path.stat().st_size if path.exists() else 0
            if size < end:
                # A disk that lied about fsync: better absent, so that it is put again, than present and broken.
                rows = self._index.in_pack(number)
                self._index.remove(digest for digest, place in rows if place.offset + place.length > size)
        packs = self._index.packs()
        numbers = pack_numbers(self._packs)
        last = max([*numbers, *packs], default=1)
        for number in numbers:
            if number not in packs and number != last:
                pack_path(self._packs, number).unlink()
        self._writer = _writer(self._packs, last, packs.get(last, (0, 0))[1])

    def _unlock(self) -> None:
        if self._lock_file is not None:
            os.close(self._lock_file)
            self._lock_file = None


def _writer(packs: Path, number: int, end: int) -> PackWriter:
    try:
        return PackWriter(packs, number, end)
    except OSError as error:
        if error.errno in FULL_ERRNOS:
            raise StoreFull("the store's disk is full: no new pack") from error
        raise


def _lock(root: Path) -> int:
    descriptor = os.open(root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise StoreLocked(str(root)) from None
    return descriptor
