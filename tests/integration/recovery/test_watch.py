"""The monitor on real PostgreSQL: suspicion, one probe, loss; and who is not lost."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from everlease.db import nodes, queries
from everlease.db.models.jobs import AwardRow
from everlease.db.models.nodes import NodeRow
from everlease.db.timers import hold_watch
from recovery import watch
from recovery.monitor import WATCH_KEY, Monitor
from tests.support.presence import gateway_up
from tests.support.recovery import Stage

pytestmark = pytest.mark.anvil


@pytest.fixture
def probes(stage: Stage) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    with psycopg.connect(stage.database.libpq_url, autocommit=True) as connection:
        connection.execute("LISTEN everlease_probe")
        yield connection


def age(stage: Stage, node: str, **columns: datetime | None) -> None:
    with stage.database.transaction() as tx:
        row = tx.get_one(NodeRow, node)
        for name, value in columns.items():
            setattr(row, name, value)


def look(stage: Stage, *, watching_for_s: float = 60.0) -> list[watch.Lost]:
    now = time.time()
    with stage.database.transaction() as tx:
        return watch.look(tx, now, now - watching_for_s, stage.desk.policy.liveness)


def test_silence_is_suspected_probed_once_and_then_lost(
    stage: Stage, job: str, probes: "psycopg.Connection[tuple[object, ...]]"
) -> None:
    node = stage.award(job).node
    assert look(stage) == []
    age(stage, node, last_seen=datetime.now(UTC) - timedelta(seconds=3))
    assert look(stage) == []
    assert look(stage) == []
    assert [found.payload for found in probes.notifies(timeout=0.5)] == [node]
    age(stage, node, probe_sent_at=datetime.now(UTC) - timedelta(seconds=1.5))
    lost = look(stage)
    assert [found.node for found in lost] == [node]
    assert watch.declare(stage.desk, lost) == 1
    assert stage.job(job).state == "RECOVERING"
    assert stage.job(job).recoveries == 1
    assert watch.declare(stage.desk, lost) == 0, "a second monitor does it again: nothing happens"
    with stage.database.transaction() as tx:
        row = tx.get_one(NodeRow, node)
        assert (row.liveness, row.losses) == ("LOST", 1)


def test_a_node_that_is_heard_between_verdict_and_sentence_keeps_its_job(stage: Stage, job: str) -> None:
    node = stage.award(job).node
    stage.kill(node)
    age(stage, node, disconnected_at=datetime.now(UTC) - timedelta(seconds=2))
    lost = look(stage)
    assert lost
    with stage.database.transaction() as tx:
        row = tx.get_one(NodeRow, node)
        assert nodes.seen(tx, node, row.session or "")
    assert watch.declare(stage.desk, lost) == 0
    assert stage.job(job).state == "RUNNING"


def test_a_monitor_that_was_away_gives_everyone_the_whole_time_again(stage: Stage, job: str) -> None:
    node = stage.award(job).node
    long_ago = datetime.now(UTC) - timedelta(seconds=50)
    age(stage, node, last_seen=long_ago, disconnected_at=long_ago)
    assert look(stage, watching_for_s=0.1) == []
    assert [found.node for found in look(stage, watching_for_s=10)] == [node]


def test_total_silence_of_several_nodes_is_the_gateways_not_theirs(stage: Stage, job: str) -> None:
    other = stage.node(6)
    for node in (stage.award(job).node, other):
        age(stage, node, last_seen=datetime.now(UTC) - timedelta(seconds=10))
    policy = stage.desk.policy.liveness
    with gateway_up(stage.database):
        with stage.database.transaction() as tx:
            assert watch.deaf(tx, time.time(), policy)
            assert not watch.deaf(tx, time.time() + watch.DEAF_AT_MOST_S, policy), "not for ever"
        age(stage, other, last_seen=datetime.now(UTC))
        with stage.database.transaction() as tx:
            assert not watch.deaf(tx, time.time(), policy)


def test_nobody_is_lost_while_no_gateway_is_up_however_long_and_then_has_the_whole_time_again(
    stage: Stage, job: str
) -> None:
    """A single node, silent for an hour: without a gateway that says nothing about its host."""
    node = stage.award(job).node
    age(stage, node, last_seen=datetime.now(UTC) - timedelta(hours=1))
    monitor = Monitor(stage.desk)
    with hold_watch(stage.database, WATCH_KEY) as hold:
        assert hold is not None
        for _ in range(3):
            assert monitor.tick(hold) == 0
        assert stage.job(job).state == "RUNNING"
        with gateway_up(stage.database):
            assert monitor.tick(hold) == 0
            with stage.database.transaction() as tx:
                row = tx.get_one(NodeRow, node)
                assert row.liveness == "ALIVE", "it has not even been suspected yet"
                assert nodes.seen(tx, node, row.session or "")
            assert monitor.tick(hold) == 0
    assert stage.job(job).state == "RUNNING"


def test_a_gateway_that_dies_takes_no_host_with_it(stage: Stage, job: str) -> None:
    """Its nodes are not alive at once, and not lost before they had the whole time to find another gateway."""
    node, now = stage.award(job).node, datetime.now(UTC)
    before = {"last_seen": now - timedelta(seconds=3.4), "probe_sent_at": now - timedelta(seconds=1.2)}
    policy = stage.desk.policy.liveness
    with stage.database.transaction() as tx:
        tx.get_one(NodeRow, node).gateway = 7
    age(stage, node, **before)
    monitor = Monitor(stage.desk)
    with hold_watch(stage.database, WATCH_KEY) as hold, gateway_up(stage.database, 8):
        assert hold is not None
        monitor._attention.since = time.time() - 60
        assert monitor.tick(hold) == 0, "by its silence alone it would be lost"
        assert stage.job(job).state == "RUNNING"
        with stage.database.transaction() as tx:
            row = tx.get_one(NodeRow, node)
            assert (row.connected, row.losses) == (False, 0)
            assert queries.market_facts(tx).nodes_alive == 0
            severed = row.severed_at
            assert severed is not None
            assert watch.look(tx, severed.timestamp() + 2.4, 0.0, policy) == []
        with stage.database.transaction() as tx:
            nodes.admit(tx, node, row.provider, "anew", "", "1", {}, gateway=8)
        assert monitor.tick(hold) == 0
        with stage.database.transaction() as tx:
            row = tx.get_one(NodeRow, node, populate_existing=True)
            assert (row.connected, row.liveness, row.losses) == (True, "ALIVE", 0)


def test_a_host_that_died_with_its_gateway_is_lost_all_the_same(stage: Stage, job: str) -> None:
    node = stage.award(job).node
    age(
        stage,
        node,
        last_seen=datetime.now(UTC) - timedelta(seconds=10),
        severed_at=datetime.now(UTC) - timedelta(seconds=4),
    )
    assert look(stage) == []
    age(stage, node, probe_sent_at=datetime.now(UTC) - timedelta(seconds=1.2))
    assert [found.node for found in look(stage)] == [node]


def test_a_job_that_its_connected_node_does_not_mention_any_more_is_recovered(stage: Stage, job: str) -> None:
    """The host was started anew faster than it could be missed, or was stopped with the whole market."""
    now, award, absences = time.time(), stage.award(job), watch.Absences()
    long_ago = datetime.fromtimestamp(now - 60, UTC)

    def look_at(later: float) -> list[watch.Absent]:
        with stage.database.transaction() as tx:
            return absences.note(watch.unreported(tx, now), now + later)

    assert look_at(0) == look_at(100) == []
    with stage.database.transaction() as tx:
        row = tx.get_one(AwardRow, award.id)
        row.started_at = row.last_beat_at = long_ago
    assert look_at(0) == look_at(100) == [], "its node came back just now"
    age(stage, award.node, connected_at=long_ago, last_seen=long_ago)
    assert look_at(100) == look_at(190) == [], "nothing at all was heard of its node: that is the monitor's to judge"
    age(stage, award.node, last_seen=datetime.fromtimestamp(now, UTC))
    assert look_at(200) == [], "its start may have been noted only now"
    missing = look_at(200 + watch.ABSENT_FOR_S)
    assert [(found.job_id, found.fence) for found in missing] == [(job, award.fence)]
    assert watch.declare_absent(stage.desk, missing) == 1
    assert stage.job(job).state == "RECOVERING"
    assert watch.declare_absent(stage.desk, missing) == 0


def test_only_one_monitor_is_active(stage: Stage, job: str) -> None:
    stage.kill(stage.award(job).node)
    monitor = Monitor(stage.desk)
    with gateway_up(stage.database), hold_watch(stage.database, WATCH_KEY) as first:
        assert first is not None
        with hold_watch(stage.database, WATCH_KEY) as second:
            assert second is None
        ended, deadline = 0, time.monotonic() + 10
        while not ended and time.monotonic() < deadline:
            ended = monitor.tick(first)
            time.sleep(0.1)
    assert ended == 1
    with hold_watch(stage.database, WATCH_KEY) as third:
        assert third is not None
