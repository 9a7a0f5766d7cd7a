"""A host is to be left, or a tenant wants to move, while the order allows no further lease: the job stays."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from recovery.moves import Record
from tests.support.model import ORDER, POLICY, World
from tests.unit.recovery.test_planner_running import A, B, running


def last_lease(world: World) -> None:
    assert world.snapshot.escrow is not None
    world.snapshot = replace(world.snapshot, escrow=replace(world.snapshot.escrow, max_epochs=1))


def cancelled_on_chain(world: World) -> None:
    assert world.snapshot.escrow is not None
    world.snapshot = replace(world.snapshot, escrow=replace(world.snapshot.escrow, cancelled=True))


def dear_and_young(world: World) -> None:
    world.set_job(order=replace(ORDER, deposit=20 * ORDER.epoch_fee))


NO_MORE = pytest.mark.parametrize("limit", [last_lease, cancelled_on_chain, dear_and_young])


@NO_MORE
@pytest.mark.parametrize("noticed", [False, True])
def test_a_host_that_is_to_be_left_keeps_the_job_until_another_lease_is_allowed(
    limit: Callable[[World], None], noticed: bool
) -> None:
    world = running()
    before = world.snapshot
    limit(world)
    if noticed:
        world.set_lease("lease-1", noticed=True)
    else:
        world.drain(A)
    world.settle()
    assert (world.job.state, world.job.due_at) == ("RUNNING", world.now + POLICY.drain_retry_s)
    assert len(world.snapshot.auctions) == 1
    world.snapshot = replace(world.snapshot, escrow=before.escrow, job=replace(world.job, order=ORDER))
    world.settle()
    assert world.job.state == "MIGRATING", "extended"


@NO_MORE
def test_a_tenants_wish_to_move_is_dropped_and_the_reason_written_down(limit: Callable[[World], None]) -> None:
    world = running()
    limit(world)
    world.set_job(wish="migrate")
    moves = world.settle()
    assert (world.job.state, world.job.wish) == ("RUNNING", None)
    (told,) = [move for move in moves if isinstance(move, Record)]
    assert told.kind == "job.migrate_refused"
    assert told.data["why"]


def test_a_lease_that_was_served_makes_room_for_the_next() -> None:
    world = running()
    dear_and_young(world)
    world.drain(A)
    world.now += 70
    world.beat()
    world.settle()
    assert world.job.state == "MIGRATING"
    world.offer(B)
    world.now += POLICY.migration_window_s
    world.settle()
    assert world.snapshot.auctions[-1].outcome == "won"


def test_outputs_are_no_held_checkpoint() -> None:
    """A host that holds the job for its migration can't make its outputs what the next host goes on from."""
    world = running()
    world.set_job(wish="migrate")
    world.settle()
    world.offer(B)
    world.now += POLICY.migration_window_s
    world.settle()
    world.answer("preload")
    world.settle()
    world.commit(final=True, mode="files")
    world.answer("hold")
    world.settle()
    assert (world.job.state, world.job.fence) == ("RUNNING", 1)
    assert world.job.reason == "nothing was committed"
