from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from everlease.domain.manifest import CID
from everlease.store.base import get_block, put_block
from everlease.store.cid import cid_of
from everlease.store.errors import BlockNotFound, StoreFull, StoreUnavailable
from everlease.store.memory import MemoryBlockStore
from everlease.store.wrappers import CachingStore, LimitedStore, RetryingStore


class Flaky(MemoryBlockStore):
    """Fails every call a few times, and a read after each block."""

    def __init__(self, failures: int) -> None:
        super().__init__()
        self.failures = failures
        self.left = failures

    def _fail(self) -> None:
        if self.left:
            self.left -= 1
            raise StoreUnavailable("try again")
        self.left = self.failures

    def put_many(self, blocks: Iterable[tuple[CID, bytes]]) -> None:
        self._fail()
        super().put_many(blocks)

    def get_many(self, cids: Iterable[CID]) -> Iterator[tuple[CID, bytes]]:
        for pair in super().get_many(cids):
            self._fail()
            yield pair


class Counting(MemoryBlockStore):
    fetched = 0

    def get_many(self, cids: Iterable[CID]) -> Iterator[tuple[CID, bytes]]:
        for pair in super().get_many(cids):
            self.fetched += 1
            yield pair


def blocks(count: int) -> list[tuple[CID, bytes]]:
    return [(cid_of(data), data) for data in (os.urandom(500) for _ in range(count))]


def test_retries_wait_longer_each_time_and_resume_where_a_read_broke_off() -> None:
    waits: list[float] = []
    store = RetryingStore(Flaky(2), attempts=3, first_wait_s=1, sleep=waits.append)
    batch = blocks(5)
    store.put_many(iter(batch))
    assert waits == [1, 2]
    assert list(store.get_many([cid for cid, _ in batch])) == batch


def test_retries_end() -> None:
    waits: list[float] = []
    store = RetryingStore(Flaky(3), attempts=3, sleep=waits.append)
    with pytest.raises(StoreUnavailable):
        store.put_many(blocks(1))
    assert len(waits) == 2


def test_what_cannot_get_better_is_not_tried_again() -> None:
    store = RetryingStore(MemoryBlockStore(), sleep=lambda _: pytest.fail("slept"))
    with pytest.raises(BlockNotFound):
        get_block(store, cid_of(b"absent"))


def test_a_cache_fetches_each_block_once(tmp_path: Path) -> None:
    inner = Counting()
    batch = blocks(100)
    inner.put_many(batch)
    cache = CachingStore(inner, tmp_path)
    cids = [cid for cid, _ in batch]
    assert cache.cached_share(cids) == 0
    assert cache.prefetch(cids[:60]) == 60
    assert cache.cached_share(cids) == 0.6
    assert list(cache.get_many(cids)) == batch
    assert list(CachingStore(inner, tmp_path).get_many(cids)) == batch
    assert inner.fetched == 100


def test_a_damaged_cache_file_is_fetched_again(tmp_path: Path) -> None:
    cache = CachingStore(MemoryBlockStore(), tmp_path)
    cid = put_block(cache, b"content")
    (path,) = (path for path in tmp_path.rglob("*") if path.is_file())
    path.write_bytes(b"c")
    assert get_block(cache, cid) == b"content"
    assert path.read_bytes() == b"content"


def test_a_cache_is_trimmed_to_the_least_recently_used(tmp_path: Path) -> None:
    cache = CachingStore(MemoryBlockStore(), tmp_path)
    batch = blocks(10)
    cache.put_many(batch)
    for number, (cid, _) in enumerate(batch):
        os.utime(tmp_path / cid[-2:] / cid, ns=(number, number))
    get_block(cache, batch[0][0])
    assert cache.trim(2500) == 2500
    kept = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert kept == {batch[0][0], *(cid for cid, _ in batch[6:])}


def test_a_cache_that_cannot_write_costs_nothing_but_the_cache(tmp_path: Path) -> None:
    cache = CachingStore(MemoryBlockStore(), tmp_path / "c")
    (tmp_path / "c").rmdir()
    (tmp_path / "c").write_bytes(b"a file, not a directory")
    assert get_block(cache, put_block(cache, b"x")) == b"x"


def test_a_limit_refuses_what_does_not_fit() -> None:
    store = LimitedStore(MemoryBlockStore(), 1200)
    first = blocks(2)
    store.put_many(first)
    with pytest.raises(StoreFull):
        store.put_many(blocks(1))
    assert set(store.cids()) == {cid for cid, _ in first}
