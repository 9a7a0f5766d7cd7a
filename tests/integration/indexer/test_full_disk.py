"""PostgreSQL's disk is full: the mirror stays where it was, the indexer waits, and goes on once there is room."""

import os
import random
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from everlease.chain.heads import HeadWaiter
from everlease.chain.memory import MemoryChain
from everlease.db import Database
from everlease.db.engine import DatabaseUnavailable
from indexer.follower import Follower, Step
from indexer.service import IndexerLoop
from tests.integration.indexer.test_follower import DEPLOYMENT, random_event
from tests.support.events import as_log
from tests.support.mirrors import Dump, dump, held, told
from tests.support.postgres import PostgresServer
from tests.support.small_disk import SmallDisk, small_disk
from tests.support.waiting import wait_for


@pytest.fixture
def disk(postgres_server: PostgresServer) -> Iterator[SmallDisk]:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o711)
        with small_disk(Path(folder, "disk"), "64m") as disk:
            yield disk


@pytest.fixture
def cramped(disk: SmallDisk, postgres_server: PostgresServer) -> Iterator[Database]:
    """A migrated database whose tables lie on the disk; the server's own files, its log of writes too, don't."""
    tables = disk.root / "tables"
    tables.mkdir(mode=0o700)
    owner = postgres_server.data.stat()
    os.chown(tables, owner.st_uid, owner.st_gid)
    postgres_server.execute(f"CREATE TABLESPACE cramped LOCATION '{tables}'")
    name = postgres_server.create_database(tablespace="cramped")
    database = Database(postgres_server.url(name))
    yield database
    database.close()
    if disk.filler.exists():
        disk.free()  # for the checkpoint that goes with the drop
    postgres_server.drop_database(name)
    postgres_server.execute("DROP TABLESPACE cramped")


def history(seed: int) -> MemoryChain:
    """More events than the room in a table's last pages holds, in several steps."""
    chance = random.Random(seed)
    chain = MemoryChain(finality=5)
    chain.mine(6)
    for _ in range(60):
        for _ in range(100):
            chain.emit(*as_log(*random_event(chance)))
        chain.mine(1)
    return chain


def anew(chain: MemoryChain, database: Database) -> Dump:
    assert Follower(chain, DEPLOYMENT, database).catch_up() is Step.IDLE
    return dump(database)


def test_a_step_that_finds_no_room_writes_nothing(disk: SmallDisk, cramped: Database, fresh: Database) -> None:
    chain = history(1)
    ours = Follower(chain, DEPLOYMENT, cramped)
    ours.step()
    before = dump(cramped)
    disk.fill()
    with pytest.raises(DatabaseUnavailable, match="No space left on device"):
        ours.step()
    assert dump(cramped) == before
    assert told(cramped) == held(cramped)
    disk.free()
    assert ours.catch_up() is Step.IDLE
    assert dump(cramped) == anew(chain, fresh)
    assert told(cramped) == held(cramped)


def test_the_indexer_waits_until_there_is_room(disk: SmallDisk, cramped: Database, fresh: Database) -> None:
    chain = history(2)
    ours = Follower(chain, DEPLOYMENT, cramped)
    ours.step()
    stopping = threading.Event()
    loop = IndexerLoop(ours, HeadWaiter(None, poll_s=0.05), stopping)
    disk.fill()
    thread = threading.Thread(target=loop.run, args=(lambda: None,))
    thread.start()
    try:
        wait_for(lambda: "No space left on device" in loop.problem)
        disk.free()
        expected = anew(chain, fresh)
        wait_for(lambda: dump(cramped) == expected)
        wait_for(lambda: not loop.problem)
        assert thread.is_alive()
    finally:
        stopping.set()
        thread.join()
    assert told(cramped) == held(cramped)
