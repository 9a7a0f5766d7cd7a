"""The live set of a collection: on disk, whole, and in bounded memory."""

import os
import tracemalloc
from collections.abc import Iterator

import pytest

from everlease.domain.manifest import CID
from everlease.store.block_service import BlockService
from everlease.store.cid import cid_of, from_digest
from everlease.store.live_set import LiveSet
from everlease.store.memory import MemoryBlockStore
from everlease.store.sessions import SessionLedger


def test_it_tells_members_from_others() -> None:
    digests = [os.urandom(32) for _ in range(1200)]
    with LiveSet() as live:
        live.add(digests[:1000])
        live.add(digests[500:1000])
        assert len(live) == 1000
        assert live.among(digests) == set(digests[:1000])


def test_a_hundred_thousand_made_up_names_take_no_memory() -> None:
    store = MemoryBlockStore()
    kept, garbage = os.urandom(10), os.urandom(10)
    store.put_many([(cid_of(data), data) for data in (kept, garbage)])
    service = BlockService(store, SessionLedger(), lambda: 1000.0)

    def names() -> Iterator[CID]:
        yield cid_of(kept)
        for _ in range(100_000):
            yield from_digest(os.urandom(32))

    tracemalloc.start()
    try:
        report = service.collect(names())
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (report.live, report.condemned) == (100_001, 1)
    assert peak < 2 << 20


def test_a_list_that_breaks_off_touches_nothing() -> None:
    store = MemoryBlockStore()
    store.put_many([(cid_of(b"a"), b"a")])
    ledger = SessionLedger()
    service = BlockService(store, ledger, lambda: 1000.0)

    def broken() -> Iterator[CID]:
        yield cid_of(b"b")
        raise RuntimeError("the database went away")

    with pytest.raises(RuntimeError):
        service.collect(broken())
    assert ledger.condemned() == 0
