"""Many hosts give a provider no more chances to fail a job than one would; a broken one does not bar its others."""

from collections.abc import Callable
from itertools import pairwise

import pytest

from everlease.domain.snapshot import Snapshot
from recovery.planner.draft import Draft
from recovery.planner.hosts import let_in_at
from tests.support.model import NODES, POLICY, RATE, World, escrow
from tests.unit.recovery.test_planner_host_faults import FAULT
from tests.unit.recovery.test_planner_running import A, B, C, recover

FLEET = tuple(f"0x{number:040x}" for number in range(1000, 1012))
HONEST = NODES[0]


def docker_fails(world: World) -> None:
    world.exit(137, FAULT)
    world.settle()
    world.answer("restart", ok=False, error="no", host_fault="docker")


def stops(world: World) -> None:
    world.goodbye()


def of_one_provider(*nodes: str, max_epochs: int = 1000) -> World:
    return World(
        Snapshot(job=World().job, escrow=escrow(max_epochs=max_epochs)), providers=dict.fromkeys(nodes, "fleet")
    )


def serve(world: World, bad: tuple[str, ...], fails: Callable[[World], None], seconds: int, *others: str) -> None:
    """Time in which all of them bid, the bad ones the least, and fail the job as soon as it runs there."""
    for _ in range(seconds):
        world.offer(*bad, rate=1)
        world.offer(*others, rate=RATE // 2)
        world.now += 0.5
        world.settle()
        world.answer("prepare")
        world.mine()
        world.settle()
        world.answer("start")
        world.settle()
        award = world.snapshot.award
        if world.job.state == "RUNNING" and award is not None and award.node in bad:
            fails(world)
            world.settle()


@pytest.mark.parametrize("fails", [docker_fails, stops])
def test_the_hosts_of_one_provider_fail_a_job_once_then_others_are_asked(fails: Callable[[World], None]) -> None:
    world = of_one_provider(*FLEET, max_epochs=13)
    serve(world, FLEET, fails, 120, HONEST)
    assert world.job.state == "RUNNING"
    assert [award.provider for award in world.snapshot.awards] == ["fleet", HONEST]


def test_where_nobody_else_bids_a_bad_fleet_is_asked_as_seldom_as_a_single_bad_host() -> None:
    world = of_one_provider(*FLEET)
    serve(world, FLEET, docker_fails, 2 * 3600)
    assert world.job.state == "WAITING_CAPACITY"
    assert len(world.snapshot.awards) <= 10, "15 s doubled eight times are over an hour"


@pytest.mark.parametrize("broken", [(A,), (A, B)])
def test_with_one_broken_host_a_provider_has_the_job_soon_on_another(broken: tuple[str, ...]) -> None:
    """However cheap the broken one is."""
    world = of_one_provider(A, B, C)
    begun = world.now
    serve(world, broken, docker_fails, 90, C)
    assert (world.job.state, [award.node for award in world.snapshot.awards]) == ("RUNNING", [*broken, C])
    assert world.snapshot.awards[-1].awarded_at - begun < 2 * POLICY.capacity_wait_s


def test_a_provider_whose_host_stopped_has_the_job_soon_on_another_where_nobody_else_bids() -> None:
    world = of_one_provider(A, B)
    world.run(A)
    world.goodbye()
    stopped = world.now
    serve(world, (), stops, 60, B)
    assert world.snapshot.awards[-1].node == B
    assert world.snapshot.awards[-1].awarded_at - stopped < 6


def broken(world: World, hours: float, *, late: bool) -> None:
    """Time in which A, the cheapest, hangs or has no lease opened, and B of the same provider bids as well."""
    until = world.now + hours * 3600
    while world.now < until and world.job.state != "RUNNING":
        world.offer(A, rate=1)
        world.offer(B)
        world.now += 1
        world.expire()
        world.settle()
        award = world.snapshot.award
        if award is not None and award.node == B:
            world.answer("prepare")
            world.mine()
            world.settle()
            world.answer("start")
        elif award is not None:
            world.mine(ok=late)
        world.settle()


@pytest.mark.parametrize("late", [True, False])
def test_a_host_that_hangs_or_gets_no_lease_does_not_bar_its_providers_others(late: bool) -> None:
    world = of_one_provider(A, B)
    broken(world, 1, late=late)
    assert (world.job.state, [award.node for award in world.snapshot.awards]) == ("RUNNING", [A, B])


def refused(world: World, node: str, seconds: int) -> list[float]:
    """When leases of this node, which bids alone, were refused by the chain."""
    for _ in range(seconds):
        world.offer(node)
        world.now += 1
        world.settle()
        world.mine(ok=False)
        world.settle()
    return [award.ended_at or 0.0 for award in world.snapshot.awards if award.outcome == "open_failed"]


def test_leases_that_cannot_be_opened_are_tried_seldom_and_never_kept_for_long_from_a_host() -> None:
    """The chain's refusal is not the host's fault: it waits for five minutes at most."""
    world = World()
    tries = refused(world, A, 3600)
    assert len(tries) <= 12 + 5
    assert max(after - before for before, after in pairwise(tries)) <= 2 * POLICY.capacity_wait_max_s
    world.now += POLICY.capacity_wait_max_s
    recover(world, A)
    assert (world.job.state, world.snapshot.escrow and world.snapshot.escrow.epochs) == ("RUNNING", 1)


def test_leases_that_cannot_be_opened_do_not_shorten_the_wait_of_a_host_that_failed_the_job() -> None:
    world = of_one_provider(A)
    serve(world, (A,), docker_fails, 3600)
    faults = [award for award in world.snapshot.awards if award.outcome == "host_fault"]
    waited = POLICY.fault_wait_s(len(faults))
    assert waited > POLICY.capacity_wait_max_s
    world.now += waited
    refused(world, A, 400)
    ended = world.snapshot.awards[-1].ended_at
    assert (world.snapshot.awards[-1].outcome, ended is not None) == ("open_failed", True)
    assert world.job.state == "WAITING_CAPACITY"
    assert let_in_at(Draft(world.snapshot, world.now, POLICY))[A] == (ended or 0.0) + waited
