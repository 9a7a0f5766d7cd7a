"""What its tenant wishes while it runs: checkpoints, hibernation; as often as it likes."""

from dataclasses import replace

import pytest

from recovery.moves import Record
from tests.support.model import LOADED, World
from tests.unit.recovery.test_planner_host_faults import FAULT
from tests.unit.recovery.test_planner_running import A, issued, running, settles


def test_hibernate_closes_the_lease_and_resume_goes_to_auction() -> None:
    world = running()
    world.set_job(wish="hibernate")
    world.settle()
    world.commit()
    world.answer("hold")
    world.settle()
    assert world.job.state == "HIBERNATED"
    assert settles(world) == [("lease-1", "close")]
    world.mine()
    world.set_job(wish="resume")
    world.settle()
    assert world.job.state == "AUCTIONING"
    assert world.snapshot.auctions[-1].plan == "resume"


def test_an_uncommitted_hold_is_no_hibernation_and_can_be_tried_again() -> None:
    world = World()
    world.run(A)
    for attempt in (1, 2):
        world.set_job(wish="hibernate")
        world.settle()
        world.answer("hold")
        world.settle()
        assert world.job.state == "RUNNING"
        assert len(issued(world, "thaw")) == attempt


def test_a_hibernating_job_that_loses_its_host_is_hibernated() -> None:
    world = running()
    world.set_job(wish="hibernate")
    world.settle()
    world.lose()
    world.now += 20
    world.settle()
    assert world.job.state == "HIBERNATED"
    assert settles(world) == [("lease-1", "suspend")]


def test_a_wished_checkpoint_is_taken_once() -> None:
    world = running()
    for _ in range(2):
        world.set_job(wish="checkpoint")
        world.settle()
    assert [move.step for move in issued(world, "checkpoint")] == ["checkpoint/1/1", "checkpoint/1/2"]
    assert world.job.wish is None


def test_wishes_that_make_no_sense_are_dropped() -> None:
    world = World()
    world.settle()
    for wish in ("migrate", "resume", "checkpoint"):
        world.set_job(wish=wish)
        world.settle()
        assert world.job.wish is None
        assert world.job.state == "AUCTIONING"


def wish(world: World, name: str) -> None:
    world.set_job(wish=name)
    world.settle()


def hibernation_fails(world: World) -> None:
    wish(world, "hibernate")
    assert world.answer("hold", ok=False, error="the store is full")
    world.settle()
    assert world.answer("thaw")
    world.settle()
    assert (world.job.state, world.job.reason) == ("RUNNING", "the store is full")


def test_a_tenant_may_ask_for_a_checkpoint_every_minute_for_weeks() -> None:
    """Each is asked for, and a hibernation has a step of its own, though only the newest commands are looked at."""
    world = running()
    hibernation_fails(world)
    for number in range(1, 2 * LOADED + 10):
        world.now += 60
        wish(world, "checkpoint")
        assert issued(world, "checkpoint")[-1].step == f"checkpoint/1/{number}"
        assert world.answer("checkpoint")
    hibernation_fails(world)
    for _ in range(LOADED):
        hibernation_fails(world)
    wish(world, "checkpoint")
    assert issued(world, "checkpoint")[-1].step == f"checkpoint/1/{number + 1}"
    assert len(world.snapshot.commands) == LOADED
    wish(world, "hibernate")
    world.commit()
    world.answer("hold")
    world.settle()
    assert world.job.state == "HIBERNATED"


@pytest.mark.parametrize("ok", [True, False])
def test_the_answer_to_a_hibernation_that_an_exit_ended_is_not_taken_for_the_next_ones(ok: bool) -> None:
    world = running()
    wish(world, "hibernate")
    world.exit(137, FAULT)
    world.commit()
    world.answer("hold", ok=ok)
    world.settle()
    assert world.answer("restart")
    world.settle()
    wish(world, "hibernate")
    assert (world.job.state, len(issued(world, "checkpoint"))) == ("HIBERNATING", 2)


def succeeded() -> World:
    """A job with three checkpoints, of which the last is final."""
    world = running()
    world.commit()
    world.commit(final=True)
    world.exit(0)
    world.settle()
    assert world.job.state == "SUCCEEDED"
    return world


def test_a_job_that_is_said_to_have_succeeded_is_resumed_from_any_checkpoint() -> None:
    world = succeeded()
    world.mine()
    world.set_job(wish="resume")
    world.snapshot = replace(world.snapshot, resume_seq=2)
    world.settle()
    assert (world.job.state, world.job.wish, world.job.head_seq) == ("AUCTIONING", None, 2)
    assert world.snapshot.auctions[-1].plan == "resume"


def test_a_job_is_resumed_from_its_beginning() -> None:
    world = succeeded()
    world.mine()
    world.set_job(wish="resume")
    world.snapshot = replace(world.snapshot, resume_seq=0)
    world.settle()
    assert (world.job.state, world.job.wish, world.job.head_manifest) == ("AUCTIONING", None, None)


def test_a_wish_for_a_checkpoint_that_is_gone_changes_nothing_but_itself() -> None:
    world = succeeded()
    world.set_job(wish="resume")
    world.snapshot = replace(world.snapshot, resume_seq=2, resume_gone=True)
    told = [move.kind for move in world.settle() if isinstance(move, Record)]
    assert (world.job.state, world.job.wish, world.job.head_seq) == ("SUCCEEDED", None, 3)
    assert "job.resume_refused" in told


@pytest.mark.parametrize("wish", ["migrate", "hibernate", "checkpoint", "cancel"])
def test_an_ended_job_takes_no_other_wish(wish: str) -> None:
    world = succeeded()
    world.set_job(wish=wish)
    world.settle()
    assert (world.job.state, world.job.wish) == ("SUCCEEDED", None)


def test_what_failed_before_a_resume_keeps_nobody_out_and_ends_nothing() -> None:
    world = running()
    world.commit()
    world.set_job(recoveries=3)
    world.set_award(world.job.fence, outcome="moved", ended_at=world.now)
    world.set_job(state="FAILED", wish="resume")
    world.settle()
    assert world.job.state == "AUCTIONING", "three recoveries are forgotten"
    assert A not in world.snapshot.auctions[-1].excluded
    assert world.job.recoveries == 0
