"""Hosts that stop in order: the job moves at once, without loss, penalty or count; beyond the bound it is a loss."""

import pytest

from recovery import moves as m
from recovery.planner.leases import fencing_time
from tests.support.model import NODES, POLICY, World
from tests.unit.recovery.test_planner_running import issued, recover, running, settles

A, B = NODES[:2]


def told(world: World) -> m.ApplyEvent:
    return next(
        move for _, _, move in world.moved if isinstance(move, m.ApplyEvent) and move.event.value == "host_stopped"
    )


def test_a_job_whose_host_stopped_goes_on_at_once_with_nothing_lost_and_nobody_punished() -> None:
    world = running()
    world.commit()
    world.goodbye()
    world.settle()
    assert (world.job.state, world.snapshot.awards[0].outcome) == ("AUCTIONING", "stopped")
    assert world.snapshot.auctions[-1].plan == "recovery"
    assert told(world).data["lossless"] is True
    recover(world, B)
    assert world.job.state == "RUNNING"
    assert fencing_time(world.snapshot, world.snapshot.awards[-1], POLICY.liveness) == 0
    assert world.snapshot.receipts["lease-1"].final
    assert [move.settle_how for _, _, move in world.moved if isinstance(move, m.EnqueueOpen)][-1] == "close"
    assert world.job.recoveries == 0


def test_without_time_for_a_checkpoint_an_interval_is_lost_and_still_nobody_is_punished() -> None:
    world = World()
    world.run(A)
    world.goodbye(why="there was no time for a checkpoint")
    world.settle()
    assert told(world).data["lossless"] is False
    assert told(world).data["why"] == "there was no time for a checkpoint"
    recover(world, B)
    assert not [how for _, how in settles(world) if how == "suspend"]
    assert world.job.recoveries == 0


def test_a_workload_that_may_still_run_waits_out_the_fencing_time() -> None:
    world = running()
    world.beat()
    world.goodbye(still=False)
    world.settle()
    old = world.snapshot.awards[0]
    assert old.outcome == "left"
    recover(world, B)
    assert fencing_time(world.snapshot, world.snapshot.awards[-1], POLICY.liveness) > (old.last_beat_at or 0)


def test_a_node_that_stops_too_often_is_lost() -> None:
    world = running()
    world.goodbye(recent=POLICY.max_stops_a_week + 1)
    world.settle()
    assert (world.job.state, world.snapshot.awards[0].goodbye) == ("RUNNING", None)
    assert any(isinstance(move, m.Record) and move.kind == "node.stop_not_excused" for _, _, move in world.moved)
    assert world.lose()
    world.settle()
    assert world.snapshot.awards[0].outcome == "lost"


def test_stops_without_end_never_end_the_job() -> None:
    world = World()
    world.run(A)
    for turn in range(8):
        world.goodbye(why="no time")
        world.settle()
        recover(world, NODES[turn % 2])
    assert world.job.state == "RUNNING"


@pytest.mark.parametrize(
    ("wish", "state"), [("migrate", "AUCTIONING"), ("hibernate", "HIBERNATED"), ("cancel", "CANCELLED")]
)
def test_a_host_that_stops_during_a_wish(wish: str, state: str) -> None:
    world = running()
    world.set_job(wish=wish)
    world.settle()
    world.goodbye()
    world.settle()
    assert world.job.state == state
    assert world.snapshot.award is None
    if wish == "hibernate":
        assert not issued(world, "thaw")


def test_a_host_that_stops_before_the_job_ran_there_is_left_alone() -> None:
    world = World()
    world.settle()
    world.offer(A)
    world.now += 2
    world.settle()
    assert world.job.state == "ALLOCATING"
    world.goodbye()
    world.settle()
    assert (world.job.state, world.snapshot.awards[0].outcome) == ("AUCTIONING", "stopped")


def test_a_job_that_ended_well_before_its_host_stopped_has_succeeded() -> None:
    world = running()
    world.exit(0)
    world.commit(final=True, mode="files")
    world.goodbye()
    world.settle()
    assert world.job.state == "SUCCEEDED"


def test_outputs_that_were_not_stored_before_the_host_stopped_are_made_again() -> None:
    world = running()
    world.exit(0)
    world.goodbye()
    world.settle()
    assert world.job.state == "AUCTIONING"


@pytest.mark.parametrize("wish", [None, "cancel"])
@pytest.mark.parametrize(("code", "fault"), [(None, ""), (0, ""), (137, "the host's Docker daemon was started anew")])
def test_a_goodbye_after_the_outputs_were_stored_is_the_end_of_the_job(
    wish: str | None, code: int | None, fault: str
) -> None:
    """Only word of the exit was lost, or that of an earlier one is still to be dealt with: nothing is run again."""
    world = running()
    if code is not None:
        world.exit(code, fault)
    world.beat(serving=False, storing=True)
    world.commit(final=True, mode="files")
    world.set_job(wish=wish)
    world.goodbye()
    world.settle()
    assert (world.job.state, world.snapshot.awards[-1].outcome, world.job.reason) == ("SUCCEEDED", "finished", "")
    assert len(world.snapshot.auctions) == 1


def test_a_goodbye_in_the_midst_of_a_move_after_the_outputs_were_stored_is_the_end_of_the_job() -> None:
    for wish in ("migrate", "hibernate"):
        world = running()
        world.set_job(wish=wish)
        world.settle()
        world.beat(serving=False, storing=True)
        world.commit(final=True, mode="files")
        world.goodbye()
        world.settle()
        assert (world.job.state, world.snapshot.awards[-1].outcome) == ("SUCCEEDED", "finished")
