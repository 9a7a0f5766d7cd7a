"""Whose word moves a job's checkpoints: what is kept, what is given up, and what a host that left may still say."""

import time
from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import select

from everlease.chain.keys import Key
from everlease.db import auctions, checkpoints, jobs, nodes, restores, snapshots
from everlease.db.models.jobs import AwardRow, CheckpointRow
from everlease.db.models.nodes import NodeRow
from everlease.db.outbox import NOTICE, OutboxEvent
from everlease.db.retention import Terms
from everlease.domain import compat
from everlease.domain.retention import Bounds
from recovery import facts, sweeps
from tests.support.deployed import key
from tests.support.marketplace import FACTS
from tests.support.recovery import Stage

pytestmark = pytest.mark.anvil


def earn(stage: Stage, job: str, seconds: float) -> None:
    """The present award has served so long."""
    with stage.database.transaction() as tx:
        tx.get_one(AwardRow, stage.award(job).id).earned_s = seconds


TERMS = Terms(timedelta(days=7), timedelta(days=1))


def kept(stage: Stage, job: str, bounds: Bounds = Bounds(), in_days: float = 0) -> list[int]:
    """The checkpoints that storage's sweep leaves of this job."""
    sweeps.tidy(stage.database, time.time() + in_days * 86_400, bounds, TERMS)
    with stage.database.transaction() as tx:
        rows = tx.scalars(
            select(CheckpointRow).where(CheckpointRow.job_id == job, CheckpointRow.condemned_at.is_(None))
        )
        return sorted(row.seq for row in rows)


def again(stage: Stage, job: str, index: int) -> None:
    """The host is lost, and the job goes on with the node of account ``index``."""
    stage.lose(job)
    stage.node(index)
    stage.run_on(job, index)


def test_a_restore_point_stays_until_another_provider_ran_for_a_day_from_a_later_one(stage: Stage) -> None:
    """However many checkpoints the present host commits."""
    stage.node(5)
    job = stage.launch()
    stage.run_on(job, 5)
    stage.checkpoint(job)
    again(stage, job, 6)
    for _ in range(6):
        stage.checkpoint(job)
    assert kept(stage, job) == [1, 5, 6, 7]
    earn(stage, job, 90_000.0)
    assert kept(stage, job) == [1, 5, 6, 7], "its own service proves nothing"
    again(stage, job, 7)
    for _ in range(4):
        stage.checkpoint(job)
    assert kept(stage, job) == [1, 7, 9, 10, 11]
    earn(stage, job, 86_400.0)
    assert kept(stage, job) == [7, 9, 10, 11]


def test_a_head_that_no_host_can_restore_gives_way_to_that_of_the_provider_before(stage: Stage) -> None:
    stage.node(5)
    job = stage.launch()
    stage.run_on(job, 5)
    stage.checkpoint(job)
    again(stage, job, 6)
    stage.checkpoint(job)
    stage.checkpoint(job)
    stage.lose(job)
    alien = {**FACTS, "kernel": "99.1"}
    with stage.database.transaction() as tx:
        for node in tx.scalars(select(NodeRow)):
            node.facts = FACTS
        for row in tx.scalars(select(CheckpointRow)):
            row.requirements = compat.needs_of(FACTS if row.seq == 1 else alien, 0)
    stage.node(7)
    with stage.database.transaction() as tx:
        tx.get_one(NodeRow, Key.of(bytes([7]) * 32).address).facts = FACTS
    for heard in ({}, {Key.of(bytes([7]) * 32).address: "another kernel"}):
        stage.until(job, lambda stage: stage.has_open_auction(job))
        with stage.database.transaction() as tx:
            (auction,) = auctions.open_auctions(tx)
            auctions.note_asked(tx, auction.auction.id, (), heard)
        stage.reach(job, "WAITING_CAPACITY")
        with stage.database.transaction() as tx:
            assert bool(auctions.dry_since(tx, job)) is bool(heard), "an auction that no gateway held says nothing"
    with stage.database.transaction() as tx:
        found = restores.fallback(tx, stage.job(job))
        assert found is not None
        assert (found.head.seq, found.before.seq, found.met) == (3, 1, False)
        # By the calendar they are a week apart, in which the job waited for capacity.
        found.before.committed_at -= timedelta(days=7)
        assert restores.worked_s(tx, found.before, found.head) < stage.desk.policy.unmet_wait_s
    stage.desk = replace(stage.desk, clock=lambda: time.time() + stage.desk.policy.unmet_wait_s + 60)
    stage.until(job, lambda stage: stage.job(job).head_seq == 1)
    with stage.database.transaction() as tx:
        rows = tx.scalars(select(CheckpointRow).order_by(CheckpointRow.seq)).all()
    assert [(row.superseded, row.damaged) for row in rows] == [(False, ""), (True, ""), (True, "")]
    stage.until(job, lambda stage: stage.has_open_auction(job))
    stage.bid(job, 7)
    stage.until(job, lambda stage: stage.has_command(job, "prepare"))
    assert stage.award(job).restore_seq == 1


def test_a_job_goes_back_only_where_another_host_could_go_on(stage: Stage) -> None:
    """Not in a plain shortage, in which all hosts that could restore the one could restore the other."""
    stage.node(5)
    job = stage.launch()
    stage.run_on(job, 5)
    stage.checkpoint(job)
    again(stage, job, 6)
    stage.checkpoint(job)
    stage.lose(job)
    stage.node(7)
    with stage.database.transaction() as tx:
        tx.get_one(NodeRow, Key.of(bytes([7]) * 32).address).facts = FACTS
        for row in tx.scalars(select(CheckpointRow)):
            row.requirements = compat.needs_of(FACTS, 0)
    with stage.database.transaction() as tx:
        assert restores.fallback(tx, stage.job(job)) is None
        head = tx.get_one(CheckpointRow, (job, 2))
        head.requirements = compat.needs_of({**FACTS, "kernel": "99.1"}, 0)
    with stage.database.transaction() as tx:
        assert restores.fallback(tx, stage.job(job)) is not None
        tx.get_one(NodeRow, Key.of(bytes([7]) * 32).address).draining = True
    with stage.database.transaction() as tx:
        assert restores.fallback(tx, stage.job(job)) is None, "one that is drained takes nothing"


def test_after_a_long_way_back_the_head_is_still_seen(stage: Stage) -> None:
    stage.node(5)
    job = stage.launch()
    stage.run_on(job, 5)
    first = stage.checkpoint(job)
    again(stage, job, 6)
    for _ in range(6):
        stage.checkpoint(job)
    stage.lose(job)
    stage.reach(job, "AUCTIONING")
    with stage.database.transaction() as tx:
        before = snapshots.load(tx, jobs.lock(tx, job))
        assert (before.job.head_seq, before.other and before.other.manifest) == (7, first)
        jobs.rewind_head(tx, jobs.lock(tx, job), "junk", 1, first, corrupt=True)
    with stage.database.transaction() as tx:
        found = snapshots.load(tx, jobs.lock(tx, job))
    assert found.head is not None
    assert (found.head.seq, found.other) == (1, None)
    assert kept(stage, job) == [1, 2, 3, 4, 5, 6], "only what the marketplace found damaged goes at once"


def test_what_two_providers_failed_to_restore_can_be_resumed_from(stage: Stage) -> None:
    """Their word rolls a job back, and deletes nothing: restore points least of all."""
    stage.node(5)
    job = stage.launch()
    stage.run_on(job, 5)
    stage.junk(job, 41)
    again(stage, job, 6)
    stage.junk(job, 40)
    with stage.database.transaction() as tx:
        jobs.rewind_head(tx, jobs.lock(tx, job), "criu said no", 0, None)
        assert not tx.scalars(select(CheckpointRow).where(CheckpointRow.damaged != "")).all()
    assert kept(stage, job) == [41, *range(75, 82)]
    with stage.database.transaction() as tx:
        found = snapshots.load(tx, jobs.lock(tx, job))
        assert (found.head, found.other, found.checkpoints) == (None, None, ()), "nothing falls back to them"
        assert checkpoints.restorable(tx, job, 41) is not None


def test_restore_points_are_kept_up_to_a_number_the_oldest_and_the_newest(stage: Stage) -> None:
    """However often hosts hand a job to and fro."""
    for index in (5, 6, 7):
        stage.node(index)
    job = stage.launch()
    stage.run_on(job, 5)
    for index in (5, 6, 7, 6, 7):
        stage.checkpoint(job)
        stage.checkpoint(job)
        stage.lose(job)
        with stage.database.transaction() as tx:
            nodes.admit(tx, Key.of(bytes([index]) * 32).address, key(index).address, f"again-{index}", "", "1", {})
        stage.run_on(job, index)
    for _ in range(4):
        stage.checkpoint(job)
    # Its author alone started from 2.
    assert kept(stage, job) == [4, 6, 8, 10, 12, 13, 14]
    assert kept(stage, job, Bounds(points=3)) == [4, 6, 10, 12, 13, 14]


def test_service_proves_a_checkpoint_over_all_leases_of_its_provider(stage: Stage) -> None:
    for index in (5, 6, 7):
        stage.node(index)
    job = stage.launch()
    stage.run_on(job, 5)
    for index in (6, 7, 7):
        stage.checkpoint(job)
        earn(stage, job, 50_000.0)
        stage.lose(job)
        with stage.database.transaction() as tx:
            nodes.admit(tx, Key.of(bytes([index]) * 32).address, key(index).address, f"again-{index}", "", "1", {})
        stage.run_on(job, index)
    for _ in range(4):
        stage.checkpoint(job)
    assert kept(stage, job) == [1, 2, 3, 5, 6, 7], "3 is where the newest host started"
    earn(stage, job, 40_000.0)
    assert kept(stage, job) == [2, 3, 5, 6, 7]


def test_outputs_that_were_stored_before_the_job_started_end_nothing(stage: Stage) -> None:
    """Their host is lost like any, and at once."""
    stage.node(5)
    job = stage.launch()
    stage.until(job, lambda stage: stage.has_open_auction(job))
    stage.bid(job, 5)
    stage.reach(job, "PREPARING")
    stage.checkpoint(job, final=True)
    stage.lose(job)
    assert stage.job(job).state == "RECOVERING"


def test_a_failed_trial_that_is_told_after_the_award_ended_counts_for_nothing(stage: Stage) -> None:
    stage.node(5)
    job = stage.launch()
    stage.run_on(job, 5)
    fence = stage.award(job).fence

    def tell() -> str:
        told = {"job_id": job, "node": stage.award(job).node, "fence": fence, "kind": "trial_dump", "detail": "no"}
        with stage.database.transaction() as tx:
            facts.keep(tx, OutboxEvent(1, NOTICE, {**told, "data": {"ok": False}}), time.time())
        return str(stage.award(job).facts.get("undumpable", ""))

    stage.lose(job)
    assert tell() == ""
    stage.node(6)
    stage.run_on(job, 6)
    fence = stage.award(job).fence
    assert tell() == "no"
