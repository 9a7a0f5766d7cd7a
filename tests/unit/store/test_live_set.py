"""The live set of a collection: on disk, whole, and in bounded memory."""

import os
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from everlease.domain.manifest import CID
from everlease.store.block_service import BlockService
from everlease.store.cid import cid_of, from_digest
from everlease.store.errors import StoreFull
from everlease.store.live_set import LiveSet
from everlease.store.memory import MemoryBlockStore
from everlease.store.sessions import SessionLedger
from tests.support.small_disk import small_disk


def test_it_tells_members_from_others() -> None:
    digests = [os.urandom(32) for _ in range(1200)]
    with LiveSet() as live:
        live.add(digests[:1000])
        live.add(digests[500:1000])
        assert len(live) == 1000
        assert live.among(digests) == set(digests[:1000])


ON_A_FULL_DISK = """
import hashlib
from everlease.store.live_set import LiveSet
digests = [hashlib.sha256(b"%d" % number).digest() for number in range(400_000)]
with LiveSet() as live:
    for start in range(0, len(digests), 5000):
        live.add(digests[start : start + 5000])
    assert len(live) == len(digests), len(live)
    assert live.among([*digests[::400], bytes(32)]) == set(digests[::400])
"""


@pytest.mark.parametrize("room", ["none", "a few MiB"])
def test_where_the_disk_is_full_it_is_kept_in_memory(tmp_path: Path, room: str) -> None:
    """Collecting makes room. SQLite reads the name of its folder once, when a process begins."""
    with small_disk(tmp_path / "disk", "3m") as disk:
        if room == "none":
            disk.fill()
        environment = {**os.environ, "SQLITE_TMPDIR": str(disk.root)}
        subprocess.run([sys.executable, "-c", ON_A_FULL_DISK], env=environment, check=True)


def test_nor_does_it_take_more_memory_than_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("everlease.store.live_set._MEMORY_KIB", 1024)
    with LiveSet() as live:
        live._db.execute("PRAGMA max_page_count=100")
        live.add(os.urandom(32) for _ in range(12_000))
        with pytest.raises(StoreFull):
            live.add(os.urandom(32) for _ in range(40_000))


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
