"""Whose word moves a job's checkpoints: what is kept, what is given up, and what a host that left may still say."""

import time
from dataclasses import replace

import pytest
from sqlalchemy import select

from everlease.chain.keys import Key
from everlease.db import auctions, restores
from everlease.db.models.jobs import AwardRow, CheckpointRow
from everlease.db.models.nodes import NodeRow
from everlease.db.outbox import NOTICE, OutboxEvent
from everlease.domain import compat
from recovery import facts, sweeps
from tests.support.marketplace import FACTS
from tests.support.recovery import Stage

pytestmark = pytest.mark.anvil


def kept(stage: Stage, job: str) -> list[int]:
    """The checkpoints that storage's sweep leaves of this job."""
    sweeps.tidy(stage.database, time.time(), 3, 7 * 86_400)
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
    with stage.database.transaction() as tx:
        tx.get_one(AwardRow, stage.award(job).id).earned_s = 90_000.0
    assert kept(stage, job) == [1, 5, 6, 7], "its own service proves nothing"
    again(stage, job, 7)
    for _ in range(4):
        stage.checkpoint(job)
    assert kept(stage, job) == [1, 7, 9, 10, 11]
    with stage.database.transaction() as tx:
        tx.get_one(AwardRow, stage.award(job).id).earned_s = 86_400.0
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
    stage.desk = replace(stage.desk, clock=lambda: time.time() + stage.desk.policy.unmet_wait_s + 60)
    stage.until(job, lambda stage: stage.job(job).head_seq == 1)
    with stage.database.transaction() as tx:
        rows = tx.scalars(select(CheckpointRow).order_by(CheckpointRow.seq)).all()
    assert [bool(row.damaged) for row in rows] == [False, True, True]
    stage.until(job, lambda stage: stage.has_open_auction(job))
    stage.bid(job, 7)
    stage.until(job, lambda stage: stage.has_command(job, "prepare"))
    assert stage.award(job).restore_seq == 1


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
