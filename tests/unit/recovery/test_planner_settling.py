"""How a lease ends: closed where the host was never started or its exit time has come, suspended where it failed."""

from dataclasses import replace
from typing import Any

import pytest

from everlease.domain.fault import FAILED_STEP
from everlease.domain.lease import LeaseState
from recovery import moves as m
from recovery.planner import hosts
from recovery.planner.leases import left_over
from recovery.planner.settling import EXIT_MARGIN_S, how_to_settle
from tests.support.model import NODES, World

A, B = NODES[:2]


def opens(world: World) -> list[m.EnqueueOpen]:
    return [move for _, _, move in world.moved if isinstance(move, m.EnqueueOpen)]


def settles(world: World) -> list[m.EnqueueSettle]:
    return [move for _, _, move in world.moved if isinstance(move, m.EnqueueSettle)]


def hand_over(world: World, kind: str) -> None:
    """The gateway puts the commands of this kind on the socket."""
    commands = (replace(c, sent_at=world.now) if c.kind == kind else c for c in world.snapshot.commands)
    world.snapshot = replace(world.snapshot, commands=tuple(commands))


def opened() -> World:
    """A job whose first lease is open, prepared by nobody yet."""
    world = World()
    world.settle()
    world.offer(A)
    world.now += 2
    world.settle()
    hand_over(world, "prepare")
    world.mine()
    world.settle()
    assert world.job.state == "PREPARING"
    return world


def next_open(world: World) -> m.EnqueueOpen:
    """The next host's ``open``, as soon as it may be sent."""
    for _ in range(40):
        world.settle()
        world.offer(B)
        if len(opens(world)) == 2:
            return opens(world)[-1]
        world.now += 0.5
    raise AssertionError(f"nothing was opened: {world.job.state}")


def test_a_host_lost_before_its_start_was_sent_is_closed_at_once_with_a_final_receipt_of_nothing() -> None:
    world = opened()
    lost_at = world.now
    assert world.lose()
    move = next_open(world)
    assert (move.settle_lease, move.settle_how) == ("lease-1", "close")
    receipt = world.snapshot.receipts["lease-1"]
    assert (receipt.final, receipt.earned) == (True, 0)
    assert world.now - lost_at <= world.job.order.max_silence, "nobody waited for the silence that a dispute needs"


def test_a_start_that_never_left_the_gateway_is_no_start() -> None:
    world = opened()
    world.answer("prepare")
    world.settle()
    held = world.snapshot.award
    assert held is not None
    assert held.start_sent_at is not None, "recovery wrote the command"
    assert world.lose()
    assert next_open(world).settle_how == "close"


def test_a_host_lost_after_its_start_went_out_is_suspended_with_the_next_open() -> None:
    world = opened()
    world.answer("prepare")
    world.settle()
    hand_over(world, "start")
    assert world.lose()
    assert next_open(world).settle_how == "suspend"
    assert "lease-1" not in world.snapshot.receipts


def test_a_failed_start_is_suspended_with_the_next_open() -> None:
    world = opened()
    world.answer("prepare")
    world.settle()
    world.answer("start", ok=False, error="no room")
    assert next_open(world).settle_how == "suspend"


def test_a_prepare_that_nobody_was_given_is_nobodys_fault() -> None:
    world = opened()
    commands = tuple(replace(c, sent_at=None) for c in world.snapshot.commands)
    world.snapshot = replace(world.snapshot, commands=commands)
    world.now += world.policy.prepare_timeout_s
    world.expire()
    assert next_open(world).settle_how == "close"


@pytest.mark.parametrize("outcome", ["cancelled", "moved", "migrated", "voided", "finished", "host_fault"])
def test_a_host_that_served_and_ended_in_agreement_is_closed(outcome: str) -> None:
    world = World()
    world.run(A)
    world.set_award(1, ended_at=world.now, outcome=outcome)
    assert how_to_settle(world.snapshot, world.snapshot.awards[0], world.now) == "close"


def lost_with(**lease: Any) -> World:
    world = World()
    world.run(A)
    world.set_lease("lease-1", **lease)
    assert world.lose()
    return world


def test_past_the_exit_time_a_lost_hosts_lease_is_closed_and_never_suspended() -> None:
    world = lost_with(noticed=True, ends_at=1_000_100, exit_at=1_000_100)
    world.now = 1_000_101.0
    move = next_open(world)
    assert (move.settle_lease, move.settle_how) == ("lease-1", "close")
    assert world.snapshot.receipts["lease-1"].final, "with any other, the watcher would pay up to the lease's end"


def test_past_the_exit_time_it_is_closed_too_where_nobody_follows() -> None:
    world = lost_with(noticed=True, ends_at=1_000_100, exit_at=1_000_100)
    world.set_job(wish="cancel")
    world.now = 1_000_101.0
    world.settle()
    assert [move.how for move in settles(world)] == ["close"]


def test_a_suspend_that_could_be_mined_after_the_exit_time_is_not_sent() -> None:
    world = lost_with(noticed=True, ends_at=1_000_100, exit_at=1_000_100)
    lost = world.snapshot.awards[0]
    assert how_to_settle(world.snapshot, lost, 1_000_100 - EXIT_MARGIN_S - 1) == "suspend"
    assert how_to_settle(world.snapshot, lost, 1_000_100 - EXIT_MARGIN_S) == "close"


def test_a_lease_that_ended_before_its_host_was_silent_long_enough_is_closed() -> None:
    world = lost_with(ends_at=1_000_000)
    lease = left_over(world.snapshot)
    assert lease is not None
    assert lease.state is LeaseState.ACTIVE
    assert how_to_settle(world.snapshot, world.snapshot.awards[0], world.now) == "close"


def test_a_lease_that_others_suspended_gets_no_final_receipt_before_it_is_judged() -> None:
    world = World()
    world.run(A)
    world.set_lease("lease-1", state=LeaseState.SUSPENDED)
    world.settle()
    assert world.snapshot.awards[0].outcome == "voided"
    assert "lease-1" not in world.snapshot.receipts


def test_the_winner_is_told_its_lease_before_it_is_opened() -> None:
    world = opened()
    told = next(m_ for _, _, m_ in world.moved if isinstance(m_, m.IssueCommand) and m_.kind == "prepare")
    award = world.snapshot.awards[0]
    assert (told.payload["lease_id"], told.payload["rate_per_hour"]) == (award.lease_id, award.rate_per_hour)
    order = [type(move) for _, _, move in world.moved]
    assert order.index(m.IssueCommand) < order.index(m.EnqueueOpen)


def test_the_planner_and_the_judge_mean_the_same_failures() -> None:
    assert {hosts.HOST_FAULT, hosts.LATE, hosts.UNREADY} <= FAILED_STEP
    assert not FAILED_STEP & {hosts.UNSENT, hosts.NOT_OPENED, hosts.STOPPED, hosts.LEFT, "lost"}
