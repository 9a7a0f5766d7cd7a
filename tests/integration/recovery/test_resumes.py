"""A job that its host spoilt, or said to be over, goes on from any checkpoint that is kept."""

import threading
import time
from datetime import UTC, datetime

import pytest

from everlease.db import Tx, awards, checkpoints, jobs, retention
from everlease.db.models.jobs import CheckpointRow
from everlease.domain.retention import Bounds
from marketplace.problems import ProblemError
from marketplace.services.wishes import Begin, record_wish
from recovery import apply, sweeps
from tests.integration.recovery.test_checkpoints import TERMS, again, earn, kept
from tests.support.recovery import Stage

pytestmark = pytest.mark.anvil


def ask(tx: Tx, job: str, seq: int) -> None:
    """As the tenant's request is taken, once the store was asked."""
    row = checkpoints.numbered(tx, job, seq)
    record_wish(tx, job, jobs.get(tx, job).tenant, "resume", "", Begin(seq, row.manifest if row else None))


def resume(stage: Stage, job: str, seq: int) -> None:
    with stage.database.transaction() as tx:
        ask(tx, job, seq)
    apply.advance(stage.desk, job)


def succeed(stage: Stage, job: str) -> None:
    """Its host says that the job has ended well."""
    stage.checkpoint(job, final=True)
    with stage.database.transaction() as tx:
        assert awards.note_exit(tx, job, stage.award(job).fence, "c", 0, time.time())
    stage.reach(job, "SUCCEEDED")


def row(stage: Stage, job: str, seq: int) -> CheckpointRow:
    with stage.database.transaction() as tx:
        return tx.get_one(CheckpointRow, (job, seq))


def spoilt(stage: Stage, junk: int) -> str:
    """A job whose second host committed junk, and then that it had ended well."""
    stage.node(5)
    job = stage.launch()
    stage.run_on(job, 5)
    for _ in range(3):
        stage.checkpoint(job)
    again(stage, job, 6)
    for done in range(0, junk, 250):
        stage.junk(job, min(250, junk - done))
        kept(stage, job)
    earn(stage, job, 100.0)
    succeed(stage, job)
    return job


def test_a_thousand_junk_commits_and_a_false_end_cost_one_command(stage: Stage) -> None:
    job = spoilt(stage, 1000)
    assert kept(stage, job) == [3, 1002, 1003, 1004]
    assert kept(stage, job, in_days=6.9) == [3, 1002, 1003, 1004], "not the final one alone"
    resume(stage, job, 3)
    found = stage.job(job)
    assert (found.state, found.wish, found.ended_at, found.head_seq) == ("AUCTIONING", None, None, 3)
    apply.advance(stage.desk, job)
    stage.node(7)
    stage.run_on(job, 7)
    held = stage.award(job)
    assert (held.restore_seq, held.restore_manifest) == (3, row(stage, job, 3).manifest)
    stage.checkpoint(job)
    fresh = row(stage, job, 1005)
    assert (fresh.depth, fresh.predecessor) == (4, held.restore_manifest), "a number of its own, its place in the chain"
    assert stage.job(job).head_seq == 1005
    # What came after stays: its tenant may think better of it. It proves nothing and is nobody's way back.
    assert kept(stage, job) == [3, 1002, 1003, 1004, 1005]
    succeed(stage, job)
    resume(stage, job, 1003)
    stage.run_on(job, 7)
    stage.checkpoint(job)
    assert (row(stage, job, 1007).depth, row(stage, job, 1005).superseded) == (1004, True)


def test_a_first_host_that_ends_a_job_at_once_costs_a_new_beginning(stage: Stage) -> None:
    """All that is kept are its outputs; 0 is the beginning, and so is what no number is named for."""
    stage.node(5)
    job = stage.launch()
    for seq in (1, 2):
        stage.run_on(job, 5)
        succeed(stage, job)
        assert stage.job(job).head_seq == seq
        with stage.database.transaction() as tx:
            record_wish(tx, job, jobs.get(tx, job).tenant, "resume", "", Begin(0 if seq == 1 else None))
        apply.advance(stage.desk, job)
        found = stage.job(job)
        assert (found.state, found.head_seq, found.head_manifest) == ("AUCTIONING", 0, None)
        assert row(stage, job, seq).superseded
    stage.run_on(job, 5)
    assert stage.award(job).restore_manifest is None
    stage.checkpoint(job)
    assert (stage.job(job).head_seq, row(stage, job, 3).depth) == (3, 1)


def test_a_beginning_that_was_looked_up_as_a_checkpoint_is_asked_again(stage: Stage) -> None:
    job = spoilt(stage, 1)
    with stage.database.transaction() as tx, pytest.raises(ProblemError, match="another checkpoint since"):
        record_wish(tx, job, jobs.get(tx, job).tenant, "resume", "", Begin(0, "bafy"))


def test_outputs_push_out_no_checkpoint_that_the_program_can_go_on_from(stage: Stage) -> None:
    stage.node(5)
    job = stage.launch()
    stage.run_on(job, 5)
    for _ in range(4):
        stage.checkpoint(job)
    for _ in range(5):
        stage.checkpoint(job, final=True)
    succeed(stage, job)
    assert kept(stage, job) == [3, 4, 10]


def test_a_second_copy_of_a_resume_does_nothing(stage: Stage) -> None:
    job = spoilt(stage, 2)
    for _ in range(2):
        with stage.database.transaction() as tx:
            ask(tx, job, 3)
    with stage.database.transaction() as tx, pytest.raises(ProblemError, match="already asked to resume"):
        ask(tx, job, 2)
    assert len(apply.advance(stage.desk, job)) > 0
    fence = stage.job(job).resumed_fence
    with stage.database.transaction() as tx, pytest.raises(ProblemError, match="AUCTIONING"):
        ask(tx, job, 3)
    apply.advance(stage.desk, job)
    assert (stage.job(job).head_seq, stage.job(job).resumed_fence) == (3, fence)


def test_the_history_of_a_job_that_paid_is_kept_longer_and_then_goes(stage: Stage) -> None:
    job = spoilt(stage, 2)
    assert kept(stage, job) == [3, 4, 5, 6]
    until = stage.job(job).kept_until
    assert until is not None
    assert 6.9 < (until - datetime.now(UTC)).total_seconds() / 86_400 <= 7
    assert kept(stage, job, in_days=7.1) == []
    with stage.database.transaction() as tx, pytest.raises(ProblemError, match="not kept any more"):
        ask(tx, job, 3)


def test_the_history_of_a_job_that_paid_nobody_goes_after_a_day(stage: Stage) -> None:
    stage.node(5)
    job = stage.launch()
    stage.run_on(job, 5)
    stage.checkpoint(job)
    succeed(stage, job)
    assert kept(stage, job, in_days=0.9) == [1, 2]
    assert kept(stage, job, in_days=1.1) == []


def begin_beside(work: threading.Thread) -> None:
    """Something else begins while the job's lock is held, and waits for it."""
    work.start()
    work.join(0.5)
    assert work.is_alive(), "it waits for the job's lock"


def test_retention_and_a_resume_take_turns(stage: Stage) -> None:
    """Whichever is first: what is resumed from is never condemned, and what is condemned never resumed from."""
    job = spoilt(stage, 8)
    old = datetime.now(UTC).replace(year=2099)

    def sweep() -> None:
        with stage.database.transaction() as tx:
            retention.condemn(tx, job, Bounds(), TERMS, old)

    work = threading.Thread(target=sweep)
    with stage.database.transaction() as tx:
        jobs.lock(tx, job)
        begin_beside(work)
        ask(tx, job, 9)
    work.join(10)
    assert row(stage, job, 9).condemned_at is None
    stage.until(job, lambda stage: stage.has_open_auction(job))
    assert (stage.job(job).head_seq, row(stage, job, 9).condemned_at) == (9, None)


def test_a_resume_that_waited_for_retention_is_refused(stage: Stage) -> None:
    job = spoilt(stage, 8)
    refused: list[ProblemError] = []

    def late() -> None:
        try:
            with stage.database.transaction() as tx:
                ask(tx, job, 9)
        except ProblemError as error:
            refused.append(error)

    work = threading.Thread(target=late)
    with stage.database.transaction() as tx:
        jobs.lock(tx, job)
        begin_beside(work)
        assert retention.condemn(tx, job, Bounds(), TERMS, datetime.now(UTC)) > 0
    work.join(10)
    assert [error.status for error in refused] == [409]
    assert (stage.job(job).state, stage.job(job).wish) == ("SUCCEEDED", None)


def test_a_wish_whose_event_was_lost_is_found_by_the_sweep(stage: Stage) -> None:
    job = spoilt(stage, 1)
    stage.until(job, lambda stage: stage.lease_state(stage.award(job).lease_id) == "CLOSED")
    assert job not in list(sweeps.job_ids(stage.database, time.time()))
    with stage.database.transaction() as tx:
        ask(tx, job, 3)
    assert job in list(sweeps.job_ids(stage.database, time.time()))
