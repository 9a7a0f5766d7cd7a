"""What strangers can make the watcher send, and what it sends again."""

import time
from dataclasses import asdict, replace
from datetime import timedelta

import pytest
from sqlalchemy import delete, select

from everlease.db import jobs, timers
from everlease.db.models.jobs import JobRow
from everlease.db.models.outbox import TxRow
from everlease.domain import jobspec
from recovery import sweeps
from recovery.apply import Desk
from tests.support.recovery import SPEC, Stage

pytestmark = pytest.mark.anvil


def overdue(stage: Stage, orders: int) -> list[str]:
    """Funded orders whose deadline has passed."""
    found = [stage.launch(nonce, deadline=stage.market.now() + 300) for nonce in range(1, orders + 1)]
    stage.market.anvil.warp(400)
    stage.market.anvil.mine(4)
    stage.mirror()
    return found


def later(stage: Stage, seconds: float = 400) -> Desk:
    return replace(stage.desk, clock=lambda: time.time() + seconds)


def refunds(stage: Stage) -> list[TxRow]:
    with stage.database.transaction() as tx:
        return list(tx.scalars(select(TxRow).where(TxRow.call == "refund").order_by(TxRow.id)))


def test_only_orders_that_were_posted_here_are_refunded(stage: Stage) -> None:
    posted, strange = overdue(stage, 2)
    with stage.database.transaction() as tx:
        tx.execute(delete(JobRow).where(JobRow.id == strange))
    assert sweeps.settle_leases(later(stage)) == 1
    assert [row.job_id for row in refunds(stage)] == [posted]


def test_refunds_go_out_a_few_at_a_time_and_once_a_day(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timers, "REFUNDS_AT_ONCE", 1)
    first, second = overdue(stage, 2)
    assert [sweeps.settle_leases(later(stage)) for _ in range(2)] == [1, 0]
    for _ in range(2):
        stage.sender.pump(stage.desk.watcher.address)
        stage.market.anvil.mine(15)
        stage.mirror()
    stage.sender.pump(stage.desk.watcher.address)
    assert sweeps.settle_leases(later(stage)) == 1
    assert {row.job_id for row in refunds(stage)} == {first, second}
    with stage.database.transaction() as tx:
        for row in tx.scalars(select(TxRow)):
            row.state = "final"
    stage.market.send(stage.market.tenant, stage.market.escrow.top_up(first, 1))
    stage.market.anvil.mine(4)
    stage.mirror()
    assert sweeps.settle_leases(later(stage)) == 0, "its tenant may take it back at any time"


def test_what_failed_is_tried_again_later_each_time_and_for_ever(stage: Stage) -> None:
    overdue(stage, 1)

    def fail_all() -> None:
        with stage.database.transaction() as tx:
            for row in tx.scalars(select(TxRow)):
                row.state, row.error = "failed", "refused"

    def age(seconds: float) -> None:
        with stage.database.transaction() as tx:
            for row in tx.scalars(select(TxRow)):
                row.created_at -= timedelta(seconds=seconds)

    assert sweeps.settle_leases(later(stage, 0.0)) == 0, "by our own clock it is not due"
    desk = later(stage)
    assert sweeps.settle_leases(desk) == 1
    fail_all()
    for tried in range(1, 12):
        age(3600)
        assert sweeps.settle_leases(desk) == 1, tried
        assert sweeps.settle_leases(desk) == 0, "one at a time"
        fail_all()
    keys = [row.action_key.rsplit("/", 1)[1] for row in refunds(stage)]
    assert keys == [str(number) for number in range(12)]
    assert sweeps.settle_leases(replace(desk, clock=time.time)) == 0


def test_an_unfunded_job_is_no_work_until_something_becomes_of_it(stage: Stage) -> None:
    order = stage.market.order(77)
    job = "0x" + "77" * 32
    with stage.database.transaction() as tx:
        tx.add(
            JobRow(
                id=job, name="j", tenant=order.tenant, watcher=order.watcher, order=asdict(order), order_signature="0x",
                spec=asdict(SPEC), image_digest=jobspec.spec_hash(SPEC), state="PENDING", wish_detail={},
            )
        )  # fmt: skip
    now = time.time()
    assert list(sweeps.job_ids(stage.database, now)) == [job], "nobody has looked at it yet"
    stage.advance(job)
    assert list(sweeps.job_ids(stage.database, now)) == []
    funded = stage.launch(78)
    assert list(sweeps.job_ids(stage.database, now)) == [funded], "its deposit may have been overlooked"
    with stage.database.transaction() as tx:
        jobs.get(tx, job).wish = "cancel"
    assert set(sweeps.job_ids(stage.database, now)) == {job, funded}
    with stage.database.transaction() as tx:
        jobs.get(tx, job).wish = None
    assert set(sweeps.job_ids(stage.database, now + 30 * 86_400)) == {job, funded}, "its time is up"
