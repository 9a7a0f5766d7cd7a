from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from pathlib import Path

import pytest

from everlease.domain.manifest import CID
from everlease.store.block_service import BlockService, ServiceLimits, Session
from everlease.store.cid import cid_of
from everlease.store.errors import BlockCorrupt, StoreFull
from everlease.store.local import LocalBlockStore
from everlease.store.memory import MemoryBlockStore
from everlease.store.sessions import SessionLedger

LIMITS = ServiceLimits(max_session_s=100, grace_s=200, session_quota_bytes=10_000)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def service(clock: Clock) -> BlockService:
    return BlockService(MemoryBlockStore(), SessionLedger(), clock, LIMITS)


def block() -> tuple[CID, bytes]:
    data = os.urandom(100)
    return cid_of(data), data


def present(service: BlockService) -> set[CID]:
    return set(service.store.cids())


def test_unreachable_blocks_are_condemned_and_deleted_only_after_the_grace(service: BlockService, clock: Clock) -> None:
    live, dead = block(), block()
    service.put(Session("s", 1050), [live, dead])
    clock.now = 1060
    assert service.collect([live[0]]).condemned == 1
    clock.now = 1259
    assert service.collect([live[0]]).deleted == 0
    clock.now = 1261
    assert service.collect([live[0]]).deleted == 1
    assert present(service) == {live[0]}


def test_a_session_holds_its_blocks_until_it_ends(service: BlockService, clock: Clock) -> None:
    held = block()
    service.put(Session("s", 10_000), [held])
    for clock.now in (1010, 1050, 1099):
        assert service.collect([]).condemned == 0
    clock.now = 1101
    assert service.collect([]).condemned == 1


def test_a_probe_takes_a_block_off_the_condemned_list(service: BlockService, clock: Clock) -> None:
    old = block()
    service.put(Session("old", 1010), [old])
    clock.now = 1020
    service.collect([])
    clock.now = 1219
    assert service.missing([old[0]], Session("new", 2000)) == set()
    clock.now = 1230
    assert service.collect([]).deleted == 0
    clock.now = 1320
    assert service.collect([]).condemned == 1
    clock.now = 1400
    assert service.collect([old[0]]).condemned == 0
    assert present(service) == {old[0]}


def test_a_probe_without_a_session_holds_nothing(service: BlockService, clock: Clock) -> None:
    cid, data = block()
    service.store.put_many([(cid, data)])
    assert service.missing([cid, block()[0]], None) != {cid}
    assert service.collect([]).condemned == 1


def test_a_condemned_block_that_became_reachable_is_pardoned(service: BlockService, clock: Clock) -> None:
    cid, data = block()
    service.store.put_many([(cid, data)])
    service.collect([])
    clock.now += 150
    service.collect([cid])
    clock.now += 100
    assert service.collect([]).deleted == 0


def test_a_session_above_its_quota_stores_nothing_more(service: BlockService) -> None:
    session = Session("s", 2000)
    assert service.put(session, [block() for _ in range(90)]) == 90
    with pytest.raises(StoreFull):
        service.put(session, [block() for _ in range(20)])
    assert service.put(Session("t", 2000), [block() for _ in range(20)]) == 20
    assert len(present(service)) == 110


def test_known_blocks_cost_no_quota(service: BlockService) -> None:
    batch = [block() for _ in range(60)]
    assert service.put(Session("s", 2000), batch) == 60
    assert service.put(Session("s", 2000), batch) == 0


def test_wrong_bytes_are_refused(service: BlockService) -> None:
    with pytest.raises(BlockCorrupt):
        service.put(Session("s", 2000), [(cid_of(b"a"), b"b")])
    assert present(service) == set()


def test_pins_and_condemnations_survive_a_restart(tmp_path: Path, clock: Clock) -> None:
    held, dead = block(), block()
    ledger = SessionLedger(tmp_path / "sessions.db")
    service = BlockService(LocalBlockStore(tmp_path / "store"), ledger, clock, LIMITS)
    service.store.put_many([dead])
    service.put(Session("s", 1090), [held])
    service.collect([])
    service.store.close()
    ledger.close()
    clock.now = 1080
    ledger = SessionLedger(tmp_path / "sessions.db")
    service = BlockService(LocalBlockStore(tmp_path / "store"), ledger, clock, LIMITS)
    assert service.collect([]).condemned == 1
    clock.now = 1201
    report = service.collect([held[0]])
    assert (report.deleted, present(service)) == (1, {held[0]})
    service.store.close()
    ledger.close()


def test_a_sweep_that_fails_half_way_is_taken_up_again(clock: Clock) -> None:
    class Failing(MemoryBlockStore):
        broken = True

        def delete(self, cids: Iterable[CID]) -> None:
            if self.broken:
                raise OSError("the disk went away")
            super().delete(cids)

    store = Failing()
    service = BlockService(store, SessionLedger(), clock, LIMITS)
    store.put_many([block()])
    service.collect([])
    clock.now += 201
    with pytest.raises(OSError, match="disk"):
        service.collect([])
    store.broken = False
    assert service.collect([]).deleted == 1


def test_a_block_that_a_probe_saw_is_there_whatever_gc_does_meanwhile(tmp_path: Path, clock: Clock) -> None:
    service = BlockService(LocalBlockStore(tmp_path / "store"), SessionLedger(tmp_path / "sessions.db"), clock, LIMITS)
    batch = [block() for _ in range(2000)]
    service.store.put_many(batch)
    service.collect([])
    clock.now += 201
    seen: set[CID] = set()

    def probe() -> None:
        for start in range(0, len(batch), 20):
            cids = [cid for cid, _ in batch[start : start + 20]]
            seen.update(set(cids) - service.missing(cids, Session("s", clock.now + 50)))

    threads = [threading.Thread(target=probe), threading.Thread(target=lambda: service.collect([]))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == present(service)
    service.store.close()


def test_a_grace_shorter_than_a_session_is_refused() -> None:
    with pytest.raises(ValueError, match="grace_s"):
        ServiceLimits(max_session_s=10, grace_s=10)
