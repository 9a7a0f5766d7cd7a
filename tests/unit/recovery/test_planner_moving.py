"""Planned moves: a migration prepares its target, holds the job, and moves it; whatever fails leaves it running."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from everlease.domain.lease import LeaseState
from recovery import moves as m
from tests.support.model import POLICY, World
from tests.unit.recovery.test_planner_host_faults import FAULT
from tests.unit.recovery.test_planner_running import A, B, issued, recover, running


def migrating() -> World:
    """A job on A whose tenant wants it moved; B won the auction and is asked to prepare."""
    world = running()
    world.set_job(wish="migrate")
    world.settle()
    world.offer(B)
    world.now += 2
    world.settle()
    return world


def test_migration_prepares_first_holds_then_moves_and_nothing_is_redone() -> None:
    world = running()
    world.set_job(wish="migrate")
    world.settle()
    assert world.job.state == "MIGRATING"
    assert A in world.snapshot.auctions[-1].excluded
    world.offer(B)
    world.now += 2
    world.settle()
    assert not issued(world, "checkpoint"), "the old host goes on while the new one prepares"
    world.answer("preload")
    world.settle()
    assert [move.payload for move in issued(world, "checkpoint")] == [{"hold": True}]
    world.commit()
    world.answer("hold", ok=True, manifest=world.job.head_manifest)
    world.settle()
    old, new = world.snapshot.awards
    assert (old.outcome, new.node, new.restore_seq) == ("migrated", B, 2)
    world.answer("prepare")
    world.mine()
    world.settle()
    assert world.job.state == "RESTORING", "no fencing time: the old host is held"
    world.answer("start")
    world.settle()
    assert world.job.state == "RUNNING"
    opened = [move for _, _, move in world.moved if isinstance(move, m.EnqueueOpen)]
    assert (opened[-1].settle_lease, opened[-1].settle_how) == ("lease-1", "close")


def test_a_migration_that_nobody_wants_leaves_the_job_running() -> None:
    world = running()
    world.set_job(wish="migrate")
    world.settle()
    world.now += 2 + POLICY.patience_s
    world.settle()
    assert world.job.state == "RUNNING"
    assert not issued(world, "checkpoint")


def test_a_failed_last_checkpoint_thaws_the_job_where_it_is() -> None:
    world = migrating()
    world.answer("preload")
    world.settle()
    world.answer("hold", ok=False, error="disk full")
    world.settle()
    assert (world.job.state, world.job.reason) == ("RUNNING", "disk full")
    assert [move.payload for move in issued(world, "thaw")] == [{"new_fence": 1}]


def test_a_new_host_that_is_lost_while_it_prepares_ends_the_migration_at_once() -> None:
    world = migrating()
    world.snapshot = replace(world.snapshot, gone_nodes=frozenset({B}))
    world.settle()
    assert world.job.state == "RUNNING"
    assert "was lost while it prepared" in world.job.reason


def test_a_winner_that_cannot_hold_the_checkpoint_just_taken_ends_the_migration_and_the_job_goes_on() -> None:
    world = migrating()
    world.answer("preload")
    world.settle()
    world.commit()
    world.snapshot = replace(world.snapshot, winner_unfit="the host's kernel 6.1 is older")
    world.answer("hold", ok=True, manifest=world.job.head_manifest)
    world.settle()
    assert (world.job.state, len(world.snapshot.awards)) == ("RUNNING", 1)
    assert len(issued(world, "thaw")) == 1
    assert "older" in world.job.reason


def test_a_migration_may_take_as_long_as_its_steps_and_the_bid_is_still_good() -> None:
    world = running()
    world.set_job(wish="migrate")
    world.settle()
    world.now += POLICY.migration_window_s
    world.offer(B)
    world.settle()
    world.now += POLICY.prepare_timeout_s - 1
    world.answer("preload")
    world.settle()
    world.now += POLICY.checkpoint_timeout_s - 1
    world.commit()
    world.answer("hold", ok=True, manifest=world.job.head_manifest)
    world.settle()
    assert (world.snapshot.awards[-1].node, world.job.state) == (B, "ALLOCATING")
    assert world.snapshot.awards[-1].bid["deadline"] >= world.now + POLICY.open_timeout_s


def test_a_job_does_not_stand_still_for_a_move_whose_bid_ends_before_the_hold_could() -> None:
    world = migrating()
    # Recovery was away: only now does it see that the target is ready.
    world.now = float(world.snapshot.auctions[-1].bids_until) - POLICY.checkpoint_timeout_s
    world.answer("preload")
    world.settle()
    assert (world.job.state, len(world.snapshot.awards)) == ("RUNNING", 1)
    assert not issued(world, "checkpoint")
    assert not issued(world, "thaw")
    assert "expires before the job could be held" in world.job.reason


def test_a_job_held_for_a_bid_that_is_about_to_end_goes_on_where_it_is() -> None:
    """The lease of the next host could not be opened in time any more."""
    world = migrating()
    world.answer("preload")
    world.settle()
    world.now = float(world.snapshot.auctions[-1].bids_until) - 10
    world.commit()
    world.answer("hold", ok=True, manifest=world.job.head_manifest)
    world.settle()
    assert (world.job.state, len(world.snapshot.awards)) == ("RUNNING", 1)
    assert len(issued(world, "thaw")) == 1


def test_a_winner_that_became_unfit_while_it_prepared_does_not_stop_the_job() -> None:
    world = migrating()
    world.snapshot = replace(world.snapshot, winner_unfit="the host's kernel 6.1 is older")
    world.answer("preload")
    world.settle()
    assert world.job.state == "RUNNING"
    assert not issued(world, "checkpoint")


def succeeds(world: World) -> None:
    world.commit(final=True, mode="files")
    world.exit(0)


def hears_nothing_more(world: World) -> None:
    assert world.lose()


def is_void(world: World) -> None:
    world.set_lease("lease-1", state=LeaseState.CLOSED)


@pytest.mark.parametrize("asked", ["open", "won"])
@pytest.mark.parametrize(
    ("leaves", "state", "plan"),
    [
        (succeeds, "SUCCEEDED", "migration"),
        (lambda world: world.exit(0), "MIGRATING", "migration"),
        (lambda world: world.exit(3), "RUNNING", "migration"),
        (lambda world: world.exit(137, FAULT), "RUNNING", "migration"),
        (lambda world: world.goodbye(), "AUCTIONING", "recovery"),
        (hears_nothing_more, "AUCTIONING", "recovery"),
        (is_void, "AUCTIONING", "recovery"),
    ],
)
def test_however_a_migration_ends_its_auction_is_over_and_a_recovery_has_its_own(
    asked: str, leaves: Callable[[World], None], state: str, plan: str
) -> None:
    if asked == "won":
        world = migrating()
    else:
        world = running()
        world.set_job(wish="migrate")
        world.settle()
    migration = world.snapshot.auctions[-1].id
    world.offer(B)
    leaves(world)
    world.settle()
    assert (world.job.state, world.snapshot.auctions[-1].plan) == (state, plan)
    left = next(auction for auction in world.snapshot.auctions if auction.id == migration)
    assert (left.closed_at is not None, left.outcome[:9]) == (True, "abandoned")
    if plan == "recovery":
        assert "runs on this node already" not in world.snapshot.auctions[-1].excluded.get(A, "")


def test_a_host_lost_while_bids_for_a_move_come_in_may_have_the_job_again() -> None:
    world = running()
    world.set_job(wish="migrate")
    world.settle()
    assert world.lose()
    recover(world, A)
    assert (world.job.state, world.snapshot.awards[-1].node) == ("RUNNING", A)


def test_a_target_chosen_for_a_move_that_an_exit_ended_is_not_taken_for_the_next_ones() -> None:
    world = migrating()
    world.answer("preload")
    world.settle()
    world.commit()
    world.exit(137, FAULT)
    world.answer("hold", manifest=world.job.head_manifest)
    world.settle()
    assert world.answer("restart")
    world.settle()
    world.set_job(wish="migrate")
    world.settle()
    assert (world.job.state, len(world.snapshot.awards), len(issued(world, "checkpoint"))) == ("MIGRATING", 1, 1)
    assert (world.snapshot.auctions[-1].plan, world.snapshot.auctions[-1].closed_at) == ("migration", None)
