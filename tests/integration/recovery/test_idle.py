"""Idle hosts on real tables: counted as heartbeats come, by the database's clock, whoever was away meanwhile."""

import time
from datetime import UTC, datetime, timedelta

import pytest

from everlease.db.models.jobs import AwardRow
from everlease.db.models.outbox import OutboxRow
from everlease.db.outbox import NOTICE, emit
from recovery.relay import Relay
from tests.integration.recovery.test_effects import Outlet
from tests.support.recovery import Stage

pytestmark = pytest.mark.anvil


def back(stage: Stage, job: str, seconds: float, *names: str) -> None:
    """The award's own instants are so much older."""
    with stage.database.transaction() as tx:
        row = tx.get_one(AwardRow, stage.award(job).id)
        for name in names:
            setattr(row, name, getattr(row, name) - timedelta(seconds=seconds))


def idle_for(stage: Stage, job: str, seconds: float) -> None:
    """The node has said for so long that it does not serve, while it beat; its start was before."""
    stage.beat(job, serving=False)
    with stage.database.transaction() as tx:
        row = tx.get_one(AwardRow, stage.award(job).id)
        row.idle_since = datetime.now(UTC) - timedelta(seconds=seconds)
        row.started_at = row.idle_since - timedelta(seconds=60)
    with stage.database.transaction() as tx:
        for command in stage.commands(tx, job):
            command.finished_at = datetime.now(UTC) - timedelta(seconds=seconds + 60)


def test_heartbeats_in_a_row_are_counted_from_the_first_and_service_or_our_absence_ends_the_row(
    stage: Stage, job: str
) -> None:
    assert stage.award(job).idle_since is None
    back(stage, job, 300, "started_at")
    stage.beat(job, 2, 0.05, serving=False)
    first = stage.award(job).idle_since
    assert first is not None
    back(stage, job, 20, "last_beat_at")
    stage.beat(job, serving=False)
    assert stage.award(job).idle_since == first
    back(stage, job, 40, "last_beat_at")
    stage.beat(job, serving=False)
    again = stage.award(job).idle_since
    assert again is not None
    assert again > first, "nobody heard it for so long: the gateway may have been away"
    stage.beat(job)
    assert stage.award(job).idle_since is None


def test_an_idle_host_is_left_by_whichever_worker_looks_next(stage: Stage, job: str) -> None:
    bound = stage.desk.policy.idle_after_s
    idle_for(stage, job, bound - 5)
    stage.advance(job)
    assert stage.award(job).outcome == ""
    due = stage.job(job).due_at
    assert due is not None
    assert 0 < due.timestamp() - time.time() <= 6
    idle_for(stage, job, bound + 1)
    stage.advance(job)
    assert stage.award(job).outcome == "host_fault"
    row = stage.job(job)
    assert (row.state, row.recoveries) == ("AUCTIONING", 0)
    assert stage.has_command(job, "stop")


def test_an_exit_that_was_told_while_recovery_was_away_is_read_first(stage: Stage, job: str) -> None:
    relay = Relay(stage.database, Outlet(), time.time)
    while relay.forward():
        pass
    award = stage.award(job)
    told = {"job_id": job, "fence": award.fence, "kind": "exited", "node": award.node}
    with stage.database.transaction() as tx:
        emit(tx, NOTICE, {**told, "data": {"container": "c1", "code": 3}})
    idle_for(stage, job, 1000)
    with stage.database.transaction() as tx:
        for event in tx.query(OutboxRow).filter(OutboxRow.topic == NOTICE):
            event.created_at = datetime.now(UTC) - timedelta(seconds=900)
    stage.advance(job)
    assert stage.award(job).outcome == ""
    while relay.forward():
        pass
    stage.advance(job)
    assert stage.award(job).outcome == ""
    assert stage.has_command(job, "restart")
