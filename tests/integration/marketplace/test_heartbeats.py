"""Service is earned by heartbeats; everything under a stale fence is refused and counted."""

import time
from datetime import UTC, datetime, timedelta

import pytest

from everlease.db import awards, commands, jobs
from everlease.db.models.jobs import AwardRow
from tests.support.deployed import key
from tests.support.gateway import award, begin, command_row, commit_fields, line, refusals, starting
from tests.support.marketplace import SPEC, FakeNode, Service, make_award

pytestmark = pytest.mark.anvil


def test_service_is_earned_by_heartbeats_alone(service: Service, node: FakeNode, job_id: str) -> None:
    node.connect()
    held = award(service, node, job_id)
    assert node.beat(line(held)).refused == []
    with service.db.transaction() as tx:
        assert tx.get_one(AwardRow, held.id).last_beat_at is None
    begin(service, held)
    for _ in range(3):
        time.sleep(0.2)
        node.beat(line(held))
    with service.db.transaction() as tx:
        row = tx.get_one(AwardRow, held.id, populate_existing=True)
    assert 0.5 < row.earned_s < 5
    assert (row.serving, row.loss_bound_s) == (True, 12.5)
    time.sleep(0.2)
    node.beat(line(held, serving=False))
    with service.db.transaction() as tx:
        after = tx.get_one(AwardRow, held.id, populate_existing=True)
    assert (after.earned_s, after.serving) == (row.earned_s, False)


def test_everything_under_a_stale_fence_is_refused_and_counted(service: Service, node: FakeNode, job_id: str) -> None:
    node.connect()
    held, _ = starting(service, node, job_id)
    begin(service, held)
    make_award(service.db, job_id, key(6), node.provider, epoch=2)
    assert node.beat(line(held)).refused == [job_id]
    node.beat(line(held))
    fields = commit_fields(service, node, held)
    node.send("commit_checkpoint", **fields)
    answer = node.expect("commit_answer")
    assert (answer.ok, answer.fenced) == (False, True)
    node.send("receipt_request", job_id=job_id, fence=held.fence, lease_id=held.lease_id)
    assert "stale" in node.expect("refusal").reason
    node.send("log", job_id=job_id, fence=held.fence, stream="stdout", offset=0, text="late")
    assert node.expect("refusal").of == "log"
    result = {"job_id": job_id, "fence": held.fence, "step": f"start/{held.fence}", "ok": True}
    node.send("command_result", result=result)
    assert node.expect("refusal").of == "command_result"
    node.send("token_request", request="t", job_id=job_id, fence=held.fence)
    assert node.expect("token_grant").ok is False
    node.send("notice", job_id=job_id, fence=held.fence, kind="progress")
    assert node.expect("refusal").of == "notice"
    node.send("notice", job_id=job_id, fence=held.fence, kind="fenced", detail="froze itself")
    node.beat()
    assert refusals(service, job_id) == {
        "heartbeat": 2,
        "checkpoint": 1,
        "receipt": 1,
        "log": 1,
        "result": 1,
        "token": 1,
        "notice": 1,
    }
    assert command_row(service, f"start/{held.fence}").ok is False
    with service.db.transaction() as tx:
        assert jobs.get(tx, job_id).head_seq == 0


def test_a_made_up_fence_is_refused_and_not_counted(service: Service, node: FakeNode, job_id: str) -> None:
    node.connect()
    assert node.beat({"job_id": job_id, "fence": 99, "serving": True}).refused == [job_id]
    assert refusals(service, job_id) == {}


def test_a_host_that_left_in_order_is_no_zombie(service: Service, node: FakeNode, job_id: str) -> None:
    node.connect()
    held = award(service, node, job_id)
    with service.db.transaction() as tx:
        awards.end(tx, job_id, held.fence, "migrated", datetime.now(UTC))
    make_award(service.db, job_id, key(6), node.provider, epoch=2)
    assert node.beat(line(held)).refused == [job_id]
    node.send("log", job_id=job_id, fence=held.fence, stream="stdout", offset=0, text="the last line\n")
    node.send("receipt_request", job_id=job_id, fence=held.fence, lease_id=held.lease_id)
    assert node.expect("receipts").receipts == []
    assert refusals(service, job_id) == {}


def test_a_node_that_prepares_ahead_of_a_migration_is_not_refused(
    service: Service, node: FakeNode, job_id: str
) -> None:
    node.connect()
    elsewhere = make_award(service.db, job_id, key(6), node.provider)
    deadline = datetime.now(UTC) + timedelta(seconds=60)
    with service.db.transaction() as tx:
        payload = {"spec": SPEC, "checkpoint": None}
        commands.issue(tx, node.key.address, job_id, elsewhere.fence, "preload/1", "prepare", payload, deadline)
    assert node.expect("command").command.fence == elsewhere.fence
    ahead = line(elsewhere, serving=False)
    assert node.beat(ahead).refused == []
    node.send("token_request", request="p", job_id=job_id, fence=elsewhere.fence)
    assert node.expect("token_grant").ok
    mine = make_award(service.db, job_id, node.key, node.provider, epoch=2)
    assert node.beat(ahead).refused == []
    with service.db.transaction() as tx:
        awards.end(tx, job_id, mine.fence, "lost", datetime.now(UTC))
    assert node.beat(ahead).refused == [job_id]
