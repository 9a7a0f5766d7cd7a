"""What waits for money, and what never stops settling it."""

from dataclasses import replace

import pytest

from everlease.domain.job import FUND_WITHIN_S
from everlease.domain.snapshot import Snapshot
from recovery import moves as m
from recovery.planner.leases import SETTLEMENT_FAILING
from tests.support.model import NODES, POLICY, START, World, escrow, new_job
from tests.unit.recovery.test_planner_running import running, settles

A = NODES[0]


def failing_settlement(tries: int) -> World:
    """A cancelled job whose lease's close reverts each time."""
    world = running()
    world.set_job(wish="cancel")
    world.settle()
    world.answer("stop")
    world.settle()
    for _ in range(tries):
        assert world.mine(ok=False)
        world.now += 3600
        world.settle()
    return world


def test_a_settlement_is_tried_for_as_long_as_the_lease_is_there_and_says_so() -> None:
    world = failing_settlement(POLICY.max_attempts + 4)
    assert len(settles(world)) == POLICY.max_attempts + 5
    told = [move for _, _, move in world.moved if isinstance(move, m.Record) and move.kind == SETTLEMENT_FAILING]
    assert [move.data["tries"] for move in told] == list(range(POLICY.max_attempts, POLICY.max_attempts + 5))
    assert world.mine()
    world.now += 3600
    world.settle()
    assert len(settles(world)) == POLICY.max_attempts + 5, "then it is settled"


def test_a_settlement_is_tried_later_each_time() -> None:
    world = failing_settlement(3)
    assert world.mine(ok=False)
    world.settle()
    assert len(settles(world)) == 4
    world.now += 7
    world.settle()
    assert len(settles(world)) == 4
    world.now += 1
    world.settle()
    assert len(settles(world)) == 5


def test_attempts_go_on_counting_where_the_oldest_are_forgotten() -> None:
    world = failing_settlement(POLICY.max_attempts)
    world.snapshot = replace(world.snapshot, txs=world.snapshot.txs[-2:])
    assert world.mine(ok=False)
    world.now += 3600
    world.settle()
    assert world.snapshot.txs[-1].action_key.endswith(f"/{POLICY.max_attempts + 1}")


@pytest.mark.parametrize("paid", [True, False])
def test_an_order_that_is_not_paid_in_time_lapses_and_its_money_is_the_tenants(paid: bool) -> None:
    """Its image is kept no longer: no host could prepare it."""
    world = World(Snapshot(job=new_job()))
    world.settle()
    assert world.job.due_at == START + FUND_WITHIN_S + 1
    world.now = START + FUND_WITHIN_S + 1
    world.snapshot = replace(world.snapshot, escrow=escrow() if paid else None)
    world.settle()
    assert world.job.state == "FAILED"
    assert "image is kept no longer" in world.job.reason
    assert ("everlease job refund" in world.job.reason) == paid


def test_an_order_that_is_paid_in_time_goes_to_auction() -> None:
    world = World(Snapshot(job=new_job(), escrow=escrow()), now=START + FUND_WITHIN_S - 1)
    world.settle()
    assert world.job.state == "AUCTIONING"


def test_no_lease_is_opened_for_less_than_the_marketplaces_fee() -> None:
    world = World(policy=replace(POLICY, min_epoch_fee=11))
    world.settle()
    world.offer(A)
    world.now += 2
    world.settle()
    assert (world.job.state, world.snapshot.awards) == ("EXHAUSTED", ())
    assert "pays less for a lease" in world.job.reason
    assert "can't be raised: take what is left back with 'everlease job refund'" in world.job.reason
    enough = World(policy=replace(POLICY, min_epoch_fee=10))
    enough.run(A)
