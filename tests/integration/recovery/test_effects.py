"""Effects are single: two workers at once, receipts, reorgs of open, finality before fail."""

import threading
import time
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import func, select, update

from everlease.chain.typed_data import receipt_digest, verify
from everlease.db import awards, evidence, nodes
from everlease.db import receipts as receipt_rows
from everlease.db.models.jobs import AwardRow
from everlease.db.models.mirror import LeaseRow
from everlease.db.models.nodes import CommandRow
from everlease.db.models.outbox import OutboxRow, TxRow
from everlease.db.outbox import emit
from everlease.db.terms import awarded
from recovery import apply, receipts, sweeps
from recovery.relay import BrokerUnavailable, Relay
from recovery.routes import ADVANCE, Task
from tests.support.recovery import Stage

pytestmark = pytest.mark.anvil


def test_two_workers_at_once_make_one_award_and_one_open(stage: Stage) -> None:
    stage.node(5)
    job = stage.launch()
    stage.until(job, lambda s: s.has_open_auction(job))
    stage.bid(job, 5)
    failures: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(10):
                apply.advance(stage.desk, job)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    with stage.database.transaction() as tx:
        counts: list[Any] = [
            tx.scalar(select(func.count()).select_from(model)) for model in (AwardRow, CommandRow, TxRow)
        ]
    assert counts == [1, 1, 1], "one award, one prepare, one open"


def test_receipts_grow_are_signed_and_end_with_a_final_one(stage: Stage) -> None:
    stage.node(5)
    job = stage.launch()
    stage.run_on(job, 5)
    watcher, lease = stage.desk.watcher, stage.award(job).lease_id
    seen: list[tuple[int, int, int]] = []
    for _ in range(3):
        stage.beat(job, 4, 0.3)
        receipts.sign_all(stage.database, watcher, stage.desk.clock)
        with stage.database.transaction() as tx:
            row = receipt_rows.newest(tx, lease)
            assert row is not None
            receipt = receipt_rows.terms_of(row)
            assert verify(receipt_digest(watcher.domain, receipt), watcher.address, row.signature)
        seen.append((receipt.seq, receipt.earned, receipt.seen_at))
    assert seen == sorted(seen)
    assert len({seq for seq, _, _ in seen}) == 3
    assert receipts.sign_all(stage.database, watcher, stage.desk.clock) == 0, "nothing new was seen"

    stage.checkpoint(job, final=True)
    with stage.database.transaction() as tx:
        awards.note_exit(tx, job, 1, "c1", 0, time.time())
    stage.reach(job, "SUCCEEDED")
    stage.until(job, lambda s: s.lease_state(lease) == "CLOSED")
    with stage.database.transaction() as tx:
        row = receipt_rows.newest(tx, lease)
        assert row is not None
        assert row.final
        award = tx.scalar(select(AwardRow))
        assert award is not None
        held = receipts.sign(tx, watcher, award, stage.job(job), final=False, now=time.time())
        assert not held, "never for an ended award"
    closed = stage.lease(lease)
    assert closed is not None
    assert closed.earned == row.earned
    assert stage.market.views.claimable(closed.provider) > 0


def test_a_reorg_of_open_is_mined_again_and_the_job_goes_on(stage: Stage) -> None:
    stage.node(5)
    job = stage.launch()
    stage.market.anvil.mine(3)
    stage.run_on(job, 5)
    lease = stage.award(job).lease_id
    stage.market.anvil.reorg(1)
    stage.mirror()
    assert stage.lease(lease) is None
    apply.advance(stage.desk, job)
    assert "unopened_at" in stage.award(job).facts
    stage.until(job, lambda s: s.lease(lease) is not None)
    stage.until(job, lambda s: "unopened_at" not in s.award(job).facts)
    assert stage.job(job).state == "RUNNING"
    assert stage.award(job).fence == 1


def test_fail_waits_for_finality_and_for_the_window_to_be_strictly_over(stage: Stage) -> None:
    stage.node(5)
    job = stage.launch()
    stage.run_on(job, 5)
    first = stage.award(job)
    stage.lose(job)
    stage.reach(job, "WAITING_CAPACITY")
    stage.until(job, lambda s: s.lease_state(first.lease_id) == "SUSPENDED")
    stage.market.anvil.warp(stage.market.deployment.terms.answer_window + 5)
    stage.mirror()
    later = apply.Desk(
        stage.database, stage.desk.watcher, stage.desk.calls, stage.desk.policy, lambda: time.time() + 100
    )
    assert sweeps.settle_leases(later) == 0, "the suspension is not final"
    stage.market.anvil.mine(4)
    stage.mirror()
    assert sweeps.settle_leases(stage.desk) == 0, "by our own clock the window is open"
    assert sweeps.settle_leases(later) == 1
    assert sweeps.settle_leases(later) == 0


def test_a_lease_past_its_exit_is_closed_with_a_final_receipt_whoever_else_signs_meanwhile(stage: Stage) -> None:
    stage.node(5)
    job = stage.launch()
    stage.run_on(job, 5)
    stage.beat(job)
    lease, watcher, found = stage.award(job).lease_id, stage.desk.watcher, []
    receipts.sign_all(stage.database, watcher, stage.desk.clock)
    with stage.database.transaction() as tx:
        tx.get_one(AwardRow, stage.award(job).id).earned_s = 100
        tx.execute(update(LeaseRow).where(LeaseRow.lease_id == lease).values(closable_at=1))
    closing = threading.Thread(target=lambda: found.append(sweeps.settle_leases(stage.desk)))
    with stage.database.transaction() as tx:
        held = awards.locked(tx, job, 1)
        assert held is not None
        assert receipts.sign(tx, watcher, *held, final=False, now=time.time())
        closing.start()
        time.sleep(0.5)
    closing.join()
    with stage.database.transaction() as tx:
        row = receipt_rows.newest(tx, lease)
        assert row is not None
        assert (row.seq, row.final, row.earned) == (3, True, 100)
        sent = tx.scalar(select(TxRow).where(TxRow.call == "close"))
        assert found == [1]
        assert sent is not None
        params = awarded(tx, stage.job(job), lease)
        call = stage.desk.calls.close(params, receipt_rows.terms_of(row), row.signature)
        assert sent.data == "0x" + call.data.hex()


def test_a_node_that_tells_other_facts_is_news_to_a_job_that_waits(stage: Stage) -> None:
    node = stage.node(5)
    job = stage.launch()
    stage.reach(job, "WAITING_CAPACITY")
    patient = replace(stage.desk.policy, capacity_wait_s=300.0)
    desk = apply.Desk(stage.database, stage.desk.watcher, stage.desk.calls, patient, stage.desk.clock)
    apply.advance(desk, job)
    assert stage.job(job).state == "WAITING_CAPACITY"
    with stage.database.transaction() as tx:
        assert nodes.restate(tx, node, "session-5", {"process_mode": True})
    until = time.monotonic() + 10
    while stage.job(job).state == "WAITING_CAPACITY" and time.monotonic() < until:
        apply.advance(desk, job)
        time.sleep(0.1)
    assert stage.job(job).state == "AUCTIONING"


class Outlet:
    """A broker that can be away."""

    def __init__(self) -> None:
        self.down = False
        self.tasks: list[Task] = []

    def send(self, task: Task) -> None:
        """Keep it, or refuse."""
        if self.down:
            raise BrokerUnavailable("down")
        self.tasks.append(task)


def test_what_the_broker_does_not_take_stays_in_the_outbox(stage: Stage) -> None:
    outlet = Outlet()
    relay = Relay(stage.database, outlet, time.time)
    while relay.forward():
        pass
    outlet.tasks.clear()
    with stage.database.transaction() as tx:
        emit(tx, "job.created", {"job_id": "0x1"})
        emit(tx, "job.wished", {"job_id": "0x1"})
        emit(tx, "broken", {"job_ids": 7})
    outlet.down = True
    with pytest.raises(BrokerUnavailable):
        relay.forward()
    with stage.database.transaction() as tx:
        assert tx.scalar(select(func.count()).select_from(OutboxRow).where(OutboxRow.sent_at.is_(None))) == 3
    outlet.down = False
    assert relay.forward() == 3
    assert outlet.tasks == [Task(ADVANCE, ("0x1",))]
    assert relay.forward() == 0


@pytest.mark.parametrize("data", [{"code": 10**400}, {"code": []}, {}, {"code": "x", "container": ["a"]}])
def test_a_nodes_nonsense_does_not_stop_the_relay(stage: Stage, data: dict[str, Any]) -> None:
    """Its events come through the same outbox as everybody's: one that can't be kept is passed over."""
    outlet = Outlet()
    relay = Relay(stage.database, outlet, time.time)
    while relay.forward():
        pass
    stage.node(5)
    job = stage.launch()
    stage.run_on(job, 5)
    while relay.forward():
        pass
    outlet.tasks.clear()
    notice = {
        "job_id": job,
        "node": "0x",
        "fence": stage.award(job).fence,
        "kind": "exited",
        "detail": "",
        "data": data,
    }
    with stage.database.transaction() as tx:
        emit(tx, "node.notice", notice)
        emit(tx, "job.wished", {"job_id": "another"})
    assert relay.forward() == 2
    assert Task(ADVANCE, ("another",)) in outlet.tasks


def test_a_full_disk_is_in_the_jobs_history_once_for_a_while(stage: Stage) -> None:
    relay = Relay(stage.database, Outlet(), time.time)
    stage.node(5)
    job = stage.launch()
    stage.run_on(job, 5)
    told = {"node": stage.award(job).node, "fence": stage.award(job).fence, "detail": "the host's disk is full"}
    notice = {"job_id": job, **told, "kind": "disk_full", "data": {"retryable": True}}
    for _ in range(2):
        with stage.database.transaction() as tx:
            emit(tx, "node.notice", notice)
    while relay.forward():
        pass
    with stage.database.transaction() as tx:
        found = [item["data"] for item in evidence.history(tx, job) if item["kind"] == "host.disk_full"]
    assert found == [told]
