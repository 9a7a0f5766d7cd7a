"""Ends, parking and what unserved leases cost, on the rows that the services share."""

import time

import pytest

from everlease.db import awards, jobs, nodes, records, snapshots
from everlease.db.models.jobs import AwardRow, CheckpointRow
from everlease.domain.job import JobState
from everlease.domain.retention import Bounds
from everlease.domain.snapshot import Snapshot
from recovery import sweeps
from tests.integration.recovery.test_checkpoints import TERMS
from tests.support.deployed import key
from tests.support.recovery import Stage

pytestmark = pytest.mark.anvil


def snapshot(stage: Stage, job: str) -> Snapshot:
    with stage.database.transaction() as tx:
        return snapshots.load(tx, jobs.lock(tx, job))


def exits(stage: Stage, job: str, code: int) -> None:
    """The program exits so, as often as it is started again."""
    fence = stage.award(job).fence
    for number in range(stage.desk.policy.max_restarts + 1):
        with stage.database.transaction() as tx:
            awards.note_exit(tx, job, fence, f"container-{number}", code, time.time())
        stage.advance(job)
        if stage.has_command(job, "restart"):
            stage.answer(job, "restart")
            stage.advance(job)


def wish(stage: Stage, job: str, name: str) -> None:
    with stage.database.transaction() as tx:
        jobs.lock(tx, job).wish = name


def recovered(stage: Stage, job: str) -> int:
    with stage.database.transaction() as tx:
        return records.recovered_from(tx, jobs.get(tx, job))


def park(stage: Stage, job: str) -> None:
    """Two providers tell of the same exit, and the order wants such a job parked."""
    with stage.database.transaction() as tx:
        row = jobs.lock(tx, job)
        row.spec = {**row.spec, "on_failure": "park"}
    for index in (5, 6):
        stage.node(index)
        stage.run_on(job, index)
        exits(stage, job, 3)
    stage.reach(job, "PARKED")


def test_a_job_is_parked_by_two_providers_and_resumed_by_its_tenant(stage: Stage) -> None:
    job = stage.launch()
    park(stage, job)
    lease = stage.award(job).lease_id
    stage.until(job, lambda stage: stage.lease_state(lease) == "CLOSED")
    row = stage.job(job)
    assert row.reason == "the job ended with exit code 3 at 2 providers"
    assert (row.ended_at, row.due_at is not None, recovered(stage, job)) == (None, True, 1)
    wish(stage, job, "resume")
    stage.node(7)
    stage.run_on(job, 7)
    found = snapshot(stage, job)
    assert (stage.job(job).state, stage.job(job).resumed_fence) == (JobState.RUNNING, 2)
    assert (recovered(stage, job), found.unserved) == (0, 1), "only what came after counts"


def test_leases_without_service_are_counted_by_the_chain(stage: Stage) -> None:
    job = stage.launch()
    stage.node(5)
    stage.run_on(job, 5)
    assert snapshot(stage, job).unserved == 1
    with stage.database.transaction() as tx:
        tx.get_one(AwardRow, stage.award(job).id).earned_s = 60.0
    assert snapshot(stage, job).unserved == 0
    stage.lose(job)
    stage.node(6)
    stage.until(job, lambda stage: stage.has_open_auction(job))
    stage.bid(job, 6)
    stage.reach(job, "PREPARING")
    assert snapshot(stage, job).unserved == 1
    stage.answer(job, "prepare", ok=False, error="no such image")
    stage.reach(job, "AUCTIONING")
    assert snapshot(stage, job).unserved == 1


def test_who_served_others_to_a_checkpoint_is_known_and_who_did_not_counts_as_one(stage: Stage) -> None:
    job = stage.launch()
    with stage.database.transaction() as tx:
        assert records.young(tx, stage.market.tenant.address)
    stage.prove(5)
    for index in (5, 6, 7):
        stage.node(index)
        stage.run_on(job, index)
        stage.checkpoint(job)
        with stage.database.transaction() as tx:
            row = tx.get_one(AwardRow, stage.award(job).id)
            row.earned_s = row.saved_s = 10_000
        stage.lose(job)
    owners = [key(index).address for index in (5, 6, 7)]
    with stage.database.transaction() as tx:
        tenant = stage.market.tenant.address
        assert not records.young(tx, tenant)
        assert records.proven(tx, owners, tenant) == {owners[0]}, "the tenant's own jobs prove nobody to it"
        assert records.recovered_from(tx, jobs.get(tx, job)) == 2, "the proven one, and the others as one"
    with stage.database.transaction() as tx:
        node = stage.award(job).node
        nodes.admit(tx, node, owners[2], "again", "", "1", {})
    stage.until(job, lambda stage: stage.has_open_auction(job))
    stage.bid(job, 7)
    assert snapshot(stage, job).proven == frozenset()


def test_a_final_checkpoint_of_a_lost_host_that_told_of_no_end_is_set_aside(stage: Stage) -> None:
    job = stage.launch()
    stage.node(5)
    stage.run_on(job, 5)
    stage.checkpoint(job, final=True)
    stage.lose(job)
    stage.until(job, lambda stage: stage.has_open_auction(job))
    row = stage.job(job)
    assert (row.state, row.head_seq, row.head_manifest) == ("AUCTIONING", 0, None)
    stage.node(6)
    stage.run_on(job, 6)
    stage.checkpoint(job)
    assert stage.job(job).head_seq == 2


def test_many_final_checkpoints_are_set_aside_to_the_newest_of_the_program(stage: Stage) -> None:
    """Whatever is still kept between them, and however long ago its author had the job."""
    job = stage.launch()
    stage.node(5)
    stage.run_on(job, 5)
    stage.checkpoint(job)
    stage.checkpoint(job)
    for _ in range(8):
        stage.checkpoint(job, final=True)
    sweeps.tidy(stage.database, time.time(), Bounds(), TERMS)
    stage.lose(job)
    stage.until(job, lambda stage: stage.has_open_auction(job))
    assert (stage.job(job).state, stage.job(job).head_seq) == ("AUCTIONING", 2)
    with stage.database.transaction() as tx:
        aside = tx.get_one(CheckpointRow, (job, 10))
        assert (aside.superseded, aside.damaged) == (True, ""), "they may be its outputs"
