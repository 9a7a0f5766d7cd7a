"""Ends that are the host's doing: made up for in place, then elsewhere, and counted only once several hosts fail."""

from dataclasses import replace

import pytest

from everlease.domain.liveness import fenced_at
from recovery.planner.leases import fencing_time
from tests.support.model import POLICY, World
from tests.unit.recovery.test_planner_running import A, B, C, issued, recover, running

FAULT = "the host's Docker daemon was started anew"


def test_a_container_that_docker_ended_is_started_again_in_place_and_counts_for_nothing() -> None:
    world = running()
    for code in (0, 137, 143):
        world.exit(code, FAULT)
        world.settle()
        assert world.job.state == "RUNNING", "an exit code of Docker's making is no success"
        world.answer("restart")
        world.settle()
    award = world.snapshot.awards[-1]
    assert (award.restarts, award.host_faults, award.exit_code) == (0, 3, None)
    assert [move.payload for move in issued(world, "restart")] == [{"checkpoint": world.job.head_manifest}] * 3
    assert world.job.recoveries == 0
    world.exit(3)
    world.settle()
    assert issued(world, "restart")[-1].step.endswith("/1"), "the program's own restarts are all left"


def fail_here(world: World) -> None:
    """The host fails the job as often as it may."""
    for _ in range(POLICY.max_host_faults):
        world.exit(137, FAULT)
        world.settle()
        world.answer("restart")
        world.settle()
    world.exit(137, FAULT)
    world.settle()


def test_a_host_whose_docker_fails_too_often_is_left_without_penalty_or_count() -> None:
    world = running()
    fail_here(world)
    assert (world.snapshot.awards[0].outcome, world.job.state) == ("host_fault", "AUCTIONING")
    assert "failed the job" in world.snapshot.auctions[-1].excluded[A]
    assert world.job.recoveries == 0
    recover(world, B)
    assert world.job.state == "RUNNING"
    assert world.snapshot.receipts["lease-1"].final
    ended = world.snapshot.awards[0].ended_at
    assert ended is not None
    fenced = fencing_time(world.snapshot, world.snapshot.awards[-1], POLICY.liveness)
    assert fenced == fenced_at(ended, POLICY.liveness), "nobody but the host says that nothing runs there any more"


@pytest.mark.parametrize("nodes", [(B, A, B, A), (B, C, B, C)])
def test_hosts_that_fail_a_job_without_progress_never_end_it(nodes: tuple[str, ...]) -> None:
    """What they say of their Docker is no evidence against the program, however many they are."""
    world = running()
    for node in nodes:
        fail_here(world)
        until_it_runs_again(world, node)
    assert (world.job.state, world.job.recoveries) == ("RUNNING", 0)


def until_it_runs_again(world: World, node: str) -> float:
    """Seconds until the node has the job again; recovery looks when it said it would."""
    begun = world.now
    while world.job.state != "RUNNING":
        world.offer(node)
        world.settle()
        world.answer("prepare")
        world.mine()
        world.settle()
        if not world.answer("start") and world.job.due_at is not None:
            world.now = max(world.now, world.job.due_at)
        world.settle()
    return world.now - begun


@pytest.mark.parametrize("served", [0, 1000])
def test_a_bad_host_that_alone_fits_is_asked_ever_later_and_the_job_waits(served: float) -> None:
    world = World()
    world.run(A)
    bound, first = POLICY.fault_wait_max_s, POLICY.capacity_wait_s
    for fault in range(13):
        world.now += served
        world.beat()
        fail_here(world)
        least = min(first * 2**fault, bound)
        assert least <= until_it_runs_again(world, A) <= least + POLICY.capacity_wait_max_s + 10
    assert least == bound
    assert world.job.recoveries == 0
    world.commit()
    fail_here(world)
    assert until_it_runs_again(world, A) < 2 * first, "the job got on there"


def test_a_host_that_serves_for_long_between_its_faults_has_the_job_again_soon() -> None:
    """A job without checkpoints never gets a newer head."""
    world = World()
    world.run(A)
    for _ in range(5):
        world.now += POLICY.fault_wait_max_s
        world.beat()
        fail_here(world)
        assert until_it_runs_again(world, A) < 2 * POLICY.capacity_wait_s


def test_a_host_that_does_not_get_the_job_going_waits_as_well_and_others_do_not() -> None:
    world = World()
    recover(world, A, ok=False, host_fault=FAULT)
    for least in (15, 30):
        ended = world.now
        recover(world, A, ok=False, host_fault=FAULT)
        assert world.now - ended >= least
    ended = world.now
    recover(world, B)
    assert (world.job.state, world.now - ended < 20) == ("RUNNING", True)


def test_a_restart_without_an_answer_waits_out_the_fencing_time() -> None:
    world = running()
    world.exit(137, FAULT)
    world.settle()
    world.now += POLICY.start_timeout_s
    world.expire()
    world.settle()
    assert world.snapshot.awards[0].outcome == "host_fault"
    old = world.snapshot.awards[0]
    assert fencing_time(world.snapshot, replace(old, fence=old.fence + 1), POLICY.liveness) > world.now


def test_docker_going_away_during_a_move_ends_the_move_and_not_the_job() -> None:
    for wish in ("migrate", "hibernate"):
        world = running()
        world.set_job(wish=wish)
        world.settle()
        world.exit(0, FAULT)
        world.settle()
        assert world.job.state == "RUNNING"
        assert len(issued(world, "restart")) == 1


def test_a_start_that_docker_broke_off_says_nothing_about_the_checkpoint() -> None:
    world = running()
    world.lose()
    for node in (B, C):
        recover(world, node, ok=False, host_fault=FAULT)
        assert world.snapshot.awards[-1].outcome == "host_fault"
    assert world.job.head_seq == 1
