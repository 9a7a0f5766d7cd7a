"""Retry, local cache and size limit: block stores around another block store."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import TypeVar

from everlease.domain.manifest import CID
from everlease.store.base import BlockStore
from everlease.store.cid import matches
from everlease.store.errors import StoreError, StoreFull

_GET_CHUNK = 64
T = TypeVar("T")


class RetryingStore:
    """Tries again after retryable errors, waiting `first_wait_s`, then twice as long each time."""

    def __init__(
        self,
        inner: BlockStore,
        *,
        attempts: int = 5,
        first_wait_s: float = 0.2,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._inner = inner
        self._attempts = attempts
        self._first_wait_s = first_wait_s
        self._sleep = sleep

    def put_many(self, blocks: Iterable[tuple[CID, bytes]]) -> None:
        batch = list(blocks)
        self._retry(lambda: self._inner.put_many(batch))

    def get_many(self, cids: Iterable[CID]) -> Iterator[tuple[CID, bytes]]:
        wanted = list(cids)
        done = failures = 0
        while done < len(wanted):
            try:
                for pair in self._inner.get_many(wanted[done:]):
                    done += 1
                    failures = 0
                    yield pair
            except StoreError as error:
                failures += 1
                self._wait_or_raise(error, failures)

    def has(self, cids: Iterable[CID]) -> set[CID]:
        wanted = list(cids)
        return self._retry(lambda: self._inner.has(wanted))

    def delete(self, cids: Iterable[CID]) -> None:
        condemned = list(cids)
        self._retry(lambda: self._inner.delete(condemned))

    def cids(self) -> Iterator[CID]:
        return self._inner.cids()

    def size(self, cid: CID) -> int:
        return self._retry(lambda: self._inner.size(cid))

    def close(self) -> None:
        self._inner.close()

    def _retry(self, call: Callable[[], T]) -> T:
        failures = 0
        while True:
            try:
                return call()
            except StoreError as error:
                failures += 1
                self._wait_or_raise(error, failures)

    def _wait_or_raise(self, error: StoreError, failures: int) -> None:
        if not error.retryable or failures >= self._attempts:
            raise error
        self._sleep(self._first_wait_s * 2 ** (failures - 1))


class CachingStore:
    """Keeps blocks it has seen as files in `directory`, so that a host downloads none twice.

    The cache is checked on every read: a damaged file is dropped and fetched again. A full disk costs the cache, never
    the call. `has` and `delete` ask the inner store, since only it decides what is stored.
    """

    def __init__(self, inner: BlockStore, directory: Path) -> None:
        self._inner = inner
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)

    def put_many(self, blocks: Iterable[tuple[CID, bytes]]) -> None:
        batch = list(blocks)
        self._inner.put_many(batch)
        for cid, data in batch:
            self._keep(cid, data)

    def get_many(self, cids: Iterable[CID]) -> Iterator[tuple[CID, bytes]]:
        remaining = iter(cids)
        while chunk := list(islice(remaining, _GET_CHUNK)):
            cached = {cid: data for cid in chunk if (data := self._cached(cid)) is not None}
            fetched = self._inner.get_many([cid for cid in chunk if cid not in cached])
            for cid in chunk:
                data = cached.get(cid)
                if data is None:
                    _, data = next(fetched)
                    self._keep(cid, data)
                yield cid, data

    def has(self, cids: Iterable[CID]) -> set[CID]:
        return self._inner.has(cids)

    def delete(self, cids: Iterable[CID]) -> None:
        condemned = list(cids)
        for cid in condemned:
            self._path(cid).unlink(missing_ok=True)
        self._inner.delete(condemned)

    def cids(self) -> Iterator[CID]:
        return self._inner.cids()

    def size(self, cid: CID) -> int:
        return self._inner.size(cid)

    def close(self) -> None:
        self._inner.close()

    def cached_share(self, cids: Iterable[CID]) -> float:
        """Share of these blocks that is in the cache (0 to 1): what a bid says about data it already holds."""
        wanted = set(cids)
        held = sum(1 for cid in wanted if self._path(cid).exists())
        return held / len(wanted) if wanted else 1.0

    def prefetch(self, cids: Iterable[CID]) -> int:
        """Fetch the blocks that the cache lacks, sealed as they are; how many were fetched."""
        lacking = [cid for cid in dict.fromkeys(cids) if not self._path(cid).exists()]
        for cid, data in self._inner.get_many(lacking):
            self._keep(cid, data)
        return len(lacking)

    def trim(self, max_bytes: int) -> int:
        """Drop the least recently used blocks until the cache fits; bytes dropped."""
        files = []
        for path in self._directory.glob("*/*"):
            status = path.stat()
            files.append((status.st_mtime_ns, status.st_size, path))
        excess = sum(size for _, size, _ in files) - max_bytes
        dropped = 0
        for _, size, path in sorted(files, key=lambda file: file[0]):
            if dropped >= excess:
                break
            path.unlink(missing_ok=True)
            dropped += size
        return dropped

    def _path(self, cid: CID) -> Path:
        return self._directory / cid[-2:] / cid

    def _cached(self, cid: CID) -> bytes | None:
        path = self._path(cid)
        try:
            data = path.read_bytes()
            os.utime(path)
        except OSError:
            return None
        if matches(cid, data):
            return data
        path.unlink(missing_ok=True)
        return None

    def _keep(self, cid: CID, data: bytes) -> None:
        path = self._path(cid)
        temporary = path.with_name(f".{secrets.token_hex(8)}")
        try:
            path.parent.mkdir(exist_ok=True, mode=0o700)
            temporary.write_bytes(data)
            temporary.replace(path)
        except OSError:
            with suppress(OSError):
                temporary.unlink()


class LimitedStore:
    """Refuses puts beyond `max_bytes` of blocks put through it since it was made, with StoreFull."""

    def __init__(self, inner: BlockStore, max_bytes: int) -> None:
        self._inner = inner
        self._left = max_bytes

    def put_many(self, blocks: Iterable[tuple[CID, bytes]]) -> None:
        batch = list(blocks)
        size = sum(len(data) for _, data in batch)
        if size > self._left:
            raise StoreFull(f"{size} bytes do not fit the {self._left} that are left")
        self._inner.put_many(batch)
        self._left -= size

    def get_many(self, cids: Iterable[CID]) -> Iterator[tuple[CID, bytes]]:
        return self._inner.get_many(cids)

    def has(self, cids: Iterable[CID]) -> set[CID]:
        return self._inner.has(cids)

    def delete(self, cids: Iterable[CID]) -> None:
        self._inner.delete(cids)

    def cids(self) -> Iterator[CID]:
        return self._inner.cids()

    def size(self, cid: CID) -> int:
        return self._inner.size(cid)

    def close(self) -> None:
        self._inner.close()
