"""News of nodes: what wakes the jobs that wait for capacity, and how often."""

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select

from everlease.db import Database, Tx, derived, mirror, nodes
from everlease.db.models.nodes import NodeRow
from everlease.db.models.outbox import OutboxRow
from everlease.domain.mirrored import MirroredBlock
from indexer.records import Provider
from indexer.workspace import Workspace

NODE, OTHER = "0x" + "01" * 20, "0x" + "02" * 20


@pytest.fixture(autouse=True)
def node(database: Database) -> None:
    with database.transaction() as tx:
        nodes.admit(tx, NODE, NODE, "session", "", "1", {"process_mode": True})


def restate(database: Database, value: object) -> bool:
    with database.transaction() as tx:
        return nodes.restate(tx, NODE, "session", {"process_mode": value})


def wakes(tx: Tx) -> int:
    return list(tx.scalars(select(OutboxRow.topic))).count("node.restated")


def test_facts_told_anew_wake_jobs_that_wait_and_not_without_bound(database: Database) -> None:
    began = datetime.now(UTC)
    assert not restate(database, True)
    with database.transaction() as tx:
        assert (wakes(tx), nodes.news_at(tx, began)) == (0, None), "nothing new"
    assert restate(database, False)
    with database.transaction() as tx:
        first = nodes.news_at(tx, began)
        assert wakes(tx) == 1
    assert first is not None
    assert began < first < datetime.now(UTC)
    assert restate(database, True)
    for number in range(20):
        assert restate(database, number)
    with database.transaction() as tx:
        assert wakes(tx) == 2, "once at once, once for when the next news counts"
        assert tx.get_one(NodeRow, NODE).facts == {"process_mode": 19}
        assert nodes.news_at(tx, began) == first + nodes.NEWS_EVERY


def test_room_on_a_disk_is_kept_and_wakes_nobody(database: Database) -> None:
    """Each checkpoint of any job makes a disk fuller and emptier again."""
    began = datetime.now(UTC)
    for room in (5, 0, 7):
        with database.transaction() as tx:
            facts = {"process_mode": True, "disk_free_bytes": room}
            assert nodes.restate(tx, NODE, "session", facts)
    with database.transaction() as tx:
        assert tx.get_one(NodeRow, NODE).facts["disk_free_bytes"] == 7
        assert (wakes(tx), nodes.news_at(tx, began)) == (0, None)


def test_news_yet_to_count_hide_no_other_node(database: Database) -> None:
    began = datetime.now(UTC)
    restate(database, False)
    restate(database, True)
    with database.transaction() as tx:
        other = nodes.admit(tx, OTHER, OTHER, "session", "", "1", {})
    with database.transaction() as tx:
        assert nodes.news_at(tx, began) == other.connected_at
        nodes.gone(tx, OTHER, "session")
        later = tx.get_one(NodeRow, NODE).facts_at
        assert nodes.news_at(tx, began) == later
        assert nodes.news_at(tx, began + timedelta(hours=1)) is None


def test_a_stake_that_arrives_or_is_freed_wakes_jobs_that_wait(database: Database) -> None:
    began, blocks = datetime.now(UTC), [MirroredBlock(number, f"0x{number:064x}", "0x", number) for number in range(9)]

    def mirrored(number: int, staked: int, locked: int) -> int:
        """How often jobs were woken once this is the stake."""
        with database.transaction() as tx:
            cursor = mirror.lock(tx, number - 1, blocks[number - 1].hash)
            rows = Workspace(lambda table, keys: derived.load(tx, table, keys))
            rows.expect("provider", (NODE, OTHER))
            rows.put(Provider(NODE, number, staked, locked))
            rows.put(Provider(OTHER, number, staked, locked))
            mirror.apply(tx, [blocks[number]], [], [], rows.changes, rows.images)
            mirror.advance(tx, cursor, blocks[number], head=number, final=number)
            return wakes(tx)

    with database.transaction() as tx:
        mirror.start(tx, 1, "0x", "0x", "0x", blocks[0])
    assert mirrored(1, 0, 0) == 0
    assert mirrored(2, 10, 0) == 1
    with database.transaction() as tx:
        first = nodes.news_at(tx, began)
    assert mirrored(3, 10, 10) == 1, "less is no news"
    assert mirrored(4, 10, 0) == 2, "a little later"
    assert mirrored(5, 30, 10) == 2, "not without bound"
    with database.transaction() as tx:
        assert first is not None
        assert nodes.news_at(tx, first) == first + nodes.NEWS_EVERY
