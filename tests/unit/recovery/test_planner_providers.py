"""Many hosts give a provider no more chances to fail a job than one would; a broken one does not bar its others."""

from collections.abc import Callable

import pytest

from everlease.domain.snapshot import Snapshot
from tests.support.model import NODES, POLICY, RATE, World, escrow
from tests.unit.recovery.test_planner_host_faults import FAULT
from tests.unit.recovery.test_planner_running import A, B, C

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
