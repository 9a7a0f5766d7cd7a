"""No pay for lost work: receipts follow the checkpoints, whoever ends the lease."""

import time
from dataclasses import asdict, replace
from typing import Any

import pytest

from everlease.db import awards, gateways
from everlease.db import receipts as receipt_rows
from everlease.db.models.jobs import AwardRow, JobRow, ReceiptRow
from everlease.domain.terms import Receipt
from recovery import apply, receipts, watch
from tests.support.presence import gateway_up
from tests.support.recovery import SPEC, Stage

pytestmark = pytest.mark.anvil


def serve(stage: Stage, job: str, seconds: float) -> None:
    """The host has served so much longer, by the heartbeats that were heard."""
    stage.beat(job)
    with stage.database.transaction() as tx:
        tx.get_one(AwardRow, stage.award(job).id).earned_s += seconds


def receipt(stage: Stage, lease: str) -> Receipt:
    receipts.sign_all(stage.database, stage.desk.watcher, stage.desk.clock)
    with stage.database.transaction() as tx:
        row = receipt_rows.newest(tx, lease)
        assert row is not None
        return receipt_rows.terms_of(row)


def pay_as_served(stage: Stage, job: str) -> None:
    policy = replace(SPEC.checkpoint, pay_unsaved=True)
    with stage.database.transaction() as tx:
        tx.get_one(JobRow, job).spec = asdict(replace(SPEC, checkpoint=policy))


def test_receipts_advance_with_the_checkpoints_and_heartbeats_are_shown_between_them(stage: Stage, job: str) -> None:
    lease = stage.award(job).lease_id
    serve(stage, job, 100)
    before = receipt(stage, lease)
    assert before.earned == 0, "nothing is saved yet"
    stage.checkpoint(job)
    time.sleep(1.1)
    serve(stage, job, 50)
    saved = receipt(stage, lease)
    assert 100 <= saved.earned < 110
    time.sleep(1.1)
    stage.beat(job)
    later = receipt(stage, lease)
    assert later.earned == saved.earned
    assert (later.seq, later.seen_at) > (saved.seq, saved.seen_at), "or a host between two checkpoints would be silent"


def test_a_lost_host_is_paid_to_its_last_checkpoint(stage: Stage, job: str) -> None:
    lease = stage.award(job).lease_id
    serve(stage, job, 100)
    stage.checkpoint(job)
    serve(stage, job, 200)
    stage.lose(job)
    with stage.database.transaction() as tx:
        row = tx.get_one(ReceiptRow, lease)
        assert not row.final
        assert 100 <= row.earned < 110


@pytest.mark.parametrize("as_served", [True, False])
def test_the_order_decides(stage: Stage, job: str, as_served: bool) -> None:
    lease = stage.award(job).lease_id
    if as_served:
        pay_as_served(stage, job)
    serve(stage, job, 100)
    stage.lose(job)
    with stage.database.transaction() as tx:
        assert tx.get_one(ReceiptRow, lease).earned == pytest.approx(100 if as_served else 0, abs=5)


def test_what_a_tenant_cancels_is_paid_to_its_end_also_where_the_host_dies_of_it(stage: Stage, job: str) -> None:
    lease = stage.award(job).lease_id
    serve(stage, job, 100)
    with stage.database.transaction() as tx:
        tx.get_one(JobRow, job).wish = "cancel"
    stage.reach(job, "CANCELLING")
    stage.lose(job)
    with stage.database.transaction() as tx:
        assert tx.get_one(ReceiptRow, lease).earned >= 100


def test_a_fault_of_the_host_is_not_paid_by_the_checkpoint_after_it(stage: Stage, job: str) -> None:
    lease = stage.award(job).lease_id
    serve(stage, job, 100)
    with stage.database.transaction() as tx:
        awards.note_exit(tx, job, 1, "c1", 1, time.time(), "its Docker went away")
    stage.until(job, lambda s: s.has_command(job, "restart"))
    stage.answer(job, "restart")
    stage.until(job, lambda s: "host_fault" not in s.award(job).facts)
    serve(stage, job, 30)
    stage.checkpoint(job)
    assert 30 <= receipt(stage, lease).earned < 40


def test_while_no_gateway_is_up_what_was_served_counts_as_saved(stage: Stage, job: str) -> None:
    """Nobody could commit. A gateway that is up excuses nobody."""
    lease = stage.award(job).lease_id

    def looked(**facts: Any) -> int:
        with stage.database.transaction() as tx:
            watch.excuse(tx, **facts)
        return receipt(stage, lease).earned

    serve(stage, job, 100)
    with gateway_up(stage.database):
        assert looked() == 0
        time.sleep(1.1)
    stage.beat(job)
    assert looked() >= 100
    serve(stage, job, 100)
    with gateway_up(stage.database):
        with stage.database.transaction() as tx:
            assert gateways.present(tx)
        time.sleep(1.1)
        stage.beat(job)
        assert looked(ours=True) >= 200, "or where the database was away until now"


def test_a_commit_that_is_repeated_saves_nothing_more(stage: Stage, job: str) -> None:
    lease = stage.award(job).lease_id
    stage.checkpoint(job)
    serve(stage, job, 100)
    with stage.database.transaction() as tx:
        row = stage.job(job)
        head = apply.checkpoints.by_manifest(tx, str(row.head_manifest))
        assert head is not None
        apply.jobs.advance_head(tx, head)
    assert receipt(stage, lease).earned < 10
