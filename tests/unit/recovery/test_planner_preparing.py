"""Preparations that fail: for now, for good, and at whose hosts."""

from dataclasses import replace

import pytest

from recovery import moves as m
from tests.support.model import NODES, POLICY, World
from tests.unit.recovery.test_planner_running import A, B, recover, running

AWAY = "the store does not answer"


def prepare_fails(world: World, *nodes: str, seconds: int = 3600, error: str = AWAY, retryable: bool = False) -> None:
    """Time in which these nodes alone bid, and answer each preparation so."""
    for _ in range(seconds):
        world.offer(*nodes)
        world.now += 1
        world.settle()
        if world.answer("prepare", ok=False, error=error, retryable=retryable):
            world.settle()
        world.mine()
        world.settle()


def opened(world: World) -> int:
    return len([move for _, _, move in world.moved if isinstance(move, m.EnqueueOpen)])


@pytest.mark.parametrize("nodes", [NODES[:1], NODES[1:]])
def test_a_store_that_is_away_for_an_hour_costs_a_job_time_alone(nodes: tuple[str, ...]) -> None:
    """Each host waits longer with each of its tries; the job says what it waits for, and goes on where it was."""
    world = running()
    world.lose()
    prepare_fails(world, *nodes, retryable=True)
    assert (world.job.state, world.job.head_seq) == ("WAITING_CAPACITY", 1)
    assert f"({AWAY})" in world.snapshot.auctions[-1].excluded[nodes[0]]
    assert opened(world) - 1 <= len(nodes) * 9, "15 s doubled eight times are over an hour"
    world.now += POLICY.fault_wait_max_s
    recover(world, nodes[0])
    assert (world.job.state, world.snapshot.awards[-1].restore_seq) == ("RUNNING", 1)


@pytest.mark.parametrize("owners", [dict.fromkeys(NODES[:4], "one provider"), {}])
def test_no_number_of_hosts_that_call_it_impossible_ends_a_job(owners: dict[str, str]) -> None:
    world = World(providers=owners)
    prepare_fails(world, *NODES[:4], error="the image is broken")
    assert world.job.state == "WAITING_CAPACITY"
    assert opened(world) <= 4 * 9
    world.snapshot = replace(world.snapshot, news_at=world.now)
    recover(world, NODES[4])
    assert world.job.state == "RUNNING"


def test_a_first_start_that_fails_for_now_is_no_failure_for_good_either() -> None:
    world = World()
    world.settle()
    world.offer(A)
    world.now += 2
    world.settle()
    for _ in range(3):
        world.answer("prepare")
        world.mine()
        world.settle()
    world.answer("start", ok=False, error="no space left", retryable=True)
    world.settle()
    assert (world.job.state, world.snapshot.awards[-1].outcome) == ("AUCTIONING", "unready")
    world.run(B)
    assert world.job.state == "RUNNING"
