"""A host that keeps a job from running, as its own heartbeats say, is left; what the market asked for is no fault."""

from dataclasses import replace

import pytest

from everlease.domain.liveness import fenced_at
from recovery.planner.leases import fencing_time
from tests.support.model import NODES, POLICY, World
from tests.unit.recovery.test_planner_moving import migrating
from tests.unit.recovery.test_planner_running import issued, recover, running, settles

A, B = NODES[:2]


def idle(world: World, seconds: float, *, storing: bool = False) -> None:
    """The node beats on, and does not serve, for this long; recovery looks now and then."""
    end = world.now + seconds
    world.beat(serving=False, storing=storing)
    while world.now < end:
        world.now = min(world.now + 10, end)
        world.expire()
        world.beat(serving=False, storing=storing)
        world.settle()


def outcome(world: World) -> str:
    return world.snapshot.awards[0].outcome


def test_a_host_that_does_not_serve_for_too_long_is_left_without_penalty_or_count() -> None:
    world = running()
    idle(world, POLICY.idle_after_s - 1)
    assert (world.job.state, world.job.due_at) == ("RUNNING", world.now + 1), "it is looked at again in time"
    idle(world, 1)
    assert (world.job.state, outcome(world)) == ("AUCTIONING", "host_fault")
    assert "did not run there for 300 s" in world.job.reason
    assert "failed the job" in world.snapshot.auctions[-1].excluded[A]
    assert [move.step for move in issued(world, "stop")] == ["stop/1"]
    recover(world, B)
    assert (world.job.state, world.job.recoveries) == ("RUNNING", 0)
    assert world.snapshot.receipts["lease-1"].final
    ended = world.snapshot.awards[0].ended_at or 0
    assert fencing_time(world.snapshot, world.snapshot.awards[-1], POLICY.liveness) == fenced_at(ended, POLICY.liveness)


def test_service_in_between_begins_the_count_anew() -> None:
    world = running()
    for _ in range(3):
        idle(world, POLICY.idle_after_s - 1)
        world.beat()
        world.settle()
    assert world.job.state == "RUNNING"
    assert world.job.due_at is None or world.job.due_at > world.now + POLICY.idle_after_s


def test_time_in_which_nothing_was_heard_does_not_count() -> None:
    world = running()
    idle(world, 10)
    world.now += 10 * POLICY.idle_after_s
    world.settle()
    assert world.job.state == "RUNNING"


@pytest.mark.parametrize(
    ("wish", "step", "answered"),
    [("migrate", "hold", False), ("hibernate", "hold", False), ("checkpoint", "checkpoint", True)],
)
def test_a_command_that_is_out_explains_a_pause_and_a_while_after_its_answer(
    wish: str, step: str, answered: bool
) -> None:
    world = running()
    world.set_job(wish=wish)
    world.settle()
    if wish == "migrate":
        world.offer(B)
        world.now += 2
        world.settle()
        world.answer("preload")
        world.settle()
    idle(world, 2 * POLICY.idle_after_s)
    assert outcome(world) == ""
    world.answer(step, ok=answered, error="" if answered else "the disk is full")
    world.settle()
    assert world.job.state == "RUNNING"
    world.answer("thaw")
    idle(world, POLICY.idle_after_s - 1)
    assert outcome(world) == ""
    idle(world, 1)
    assert outcome(world) == "host_fault"


def test_a_drain_that_keeps_asking_does_not_keep_an_idle_host() -> None:
    world = running()
    world.snapshot = replace(world.snapshot, draining_nodes=frozenset({A}))
    world.beat(serving=False)
    begun = world.now
    while outcome(world) == "" and world.now < begun + 2 * POLICY.idle_after_s:
        idle(world, 1)
        world.offer(B)
        world.answer("preload")
        world.settle()
        world.answer("hold", ok=False, error="the checkpoint failed")
        world.settle()
        world.answer("thaw")
        world.settle()
    assert (len(issued(world, "thaw")) > 5, outcome(world)) == (True, "host_fault")
    assert world.now == begun + POLICY.idle_after_s


def test_only_the_time_in_which_commands_are_out_is_left_out() -> None:
    world = running()
    idle(world, POLICY.idle_after_s - 100)
    for wish in ("checkpoint", "hibernate"):
        world.set_job(wish=wish)
        world.settle()
        idle(world, POLICY.idle_after_s)
    for step in ("checkpoint", "hold"):
        world.answer(step, ok=False, error="the disk is full")
    world.settle()
    idle(world, 50)
    world.answer("thaw")
    idle(world, 99)
    assert (world.job.state, outcome(world)) == ("RUNNING", "")
    assert world.job.due_at == world.now + 1
    idle(world, 1)
    assert outcome(world) == "host_fault"


def test_a_held_job_waits_to_be_thawed_and_its_host_is_not_to_blame() -> None:
    world = running()
    world.set_job(wish="hibernate")
    world.settle()
    world.answer("hold", manifest="never committed")
    world.now += 2 * POLICY.idle_after_s
    world.beat(serving=False)
    world.settle()
    world.answer("thaw")
    world.settle()
    assert (world.job.state, outcome(world)) == ("RUNNING", ""), "recovery was away, not the host"


def test_a_restart_that_was_asked_for_late_has_its_own_time() -> None:
    world = running()
    world.beat(serving=False)
    world.exit(137, "the host's Docker daemon was started anew")
    world.now += 2 * POLICY.idle_after_s
    world.beat(serving=False)
    world.settle()
    world.answer("restart")
    world.settle()
    assert (world.job.state, outcome(world)) == ("RUNNING", "")
    idle(world, POLICY.idle_after_s)
    assert outcome(world) == "host_fault"


def test_a_restart_in_place_is_waited_for() -> None:
    world = running()
    world.exit(137, "the host's Docker daemon does not come back")
    world.settle()
    idle(world, POLICY.start_timeout_s - 1)
    assert (world.job.state, outcome(world)) == ("RUNNING", "")
    world.answer("restart", ok=False, error="Docker is away", host_fault="Docker is away")
    world.settle()
    assert (world.job.state, outcome(world)) == ("AUCTIONING", "host_fault")


def test_what_is_being_stored_has_a_longer_time_of_its_own() -> None:
    world = running()
    idle(world, POLICY.storing_after_s - 1, storing=True)
    assert outcome(world) == ""
    idle(world, 1, storing=True)
    assert outcome(world) == "host_fault", "the word of a host is no reason to wait for ever"


@pytest.mark.parametrize(
    ("storing", "state", "ended"), [(True, "SUCCEEDED", "finished"), (False, "AUCTIONING", "host_fault")]
)
def test_a_job_whose_outputs_are_in_succeeds_only_where_its_host_told_of_its_end(
    storing: bool, state: str, ended: str
) -> None:
    """Heartbeats that say that it stands still to be stored tell that, too. Else the outputs are no end."""
    world = running()
    world.commit(final=True, mode="files")
    bound = POLICY.storing_after_s if storing else POLICY.idle_after_s
    idle(world, bound - 1, storing=storing)
    assert world.job.state == "RUNNING", "the exit may be on its way"
    idle(world, 1, storing=storing)
    assert (world.job.state, outcome(world)) == (state, ended)
    assert world.job.head_seq == (2 if storing else 1), "what nobody answers for is no place to go on from"


def test_an_end_that_waits_to_be_written_down_is_no_fault() -> None:
    world = running()
    world.snapshot = replace(world.snapshot, unread=True)
    idle(world, 2 * POLICY.idle_after_s)
    assert outcome(world) == ""
    world.snapshot = replace(world.snapshot, unread=False)
    world.exit(3)
    world.settle()
    assert [move.step for move in issued(world, "restart")] == ["restart/1/1"]


def test_a_host_that_freezes_the_job_while_a_move_is_prepared_is_left_and_the_move_abandoned() -> None:
    world = migrating()
    assert world.job.state == "MIGRATING"
    assert issued(world, "prepare")[-1].node == B, "a command to another node explains nothing"
    idle(world, POLICY.idle_after_s)
    assert (world.job.state, outcome(world)) == ("AUCTIONING", "host_fault")
    recover(world, B)
    assert world.job.state == "RUNNING"


def test_money_that_runs_out_is_no_fault_of_the_host() -> None:
    world = running()
    world.set_lease("lease-1", reserve=world.snapshot.leases[0].rate // 3600 * 20)
    assert world.snapshot.escrow is not None
    world.snapshot = replace(world.snapshot, escrow=replace(world.snapshot.escrow, balance=0))
    idle(world, 2 * POLICY.idle_after_s)
    assert outcome(world) == ""
    world.commit()
    world.answer("hold")
    world.settle()
    assert (world.job.state, settles(world)) == ("EXHAUSTED", [("lease-1", "close")])


@pytest.mark.parametrize("away", [600, POLICY.storing_after_s, 2 * POLICY.storing_after_s])
def test_a_held_job_that_recovery_was_away_from_is_hibernated_all_the_same(away: float) -> None:
    world = running()
    world.set_job(wish="hibernate")
    world.settle()
    world.beat(serving=False, storing=True)
    world.commit()
    world.answer("hold")
    world.now += away
    world.beat(serving=False, storing=True)
    world.settle()
    assert (world.job.state, outcome(world)) == ("HIBERNATED", "hibernated")


def test_a_held_job_that_recovery_was_away_from_is_moved_all_the_same() -> None:
    world = migrating()
    world.answer("preload")
    world.settle()
    world.beat(serving=False)
    world.commit()
    world.answer("hold")
    world.now += POLICY.idle_after_s
    world.beat(serving=False)
    world.settle()
    assert (world.job.state, outcome(world), world.snapshot.awards[-1].node) == ("ALLOCATING", "migrated", B)
