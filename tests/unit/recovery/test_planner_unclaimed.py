"""A head that nobody takes: it is waited for as long as it is worth, then given up for that of the provider before."""

from dataclasses import replace

import pytest

from everlease.domain.job import JobState
from everlease.domain.snapshot import Reach
from recovery import moves as m
from recovery.planner import plan
from tests.support.model import POLICY, START, World
from tests.unit.recovery.test_planner_running import running


def untaken(*, met: bool, lost_s: float) -> World:
    """At auction again after one that was dry; the head is the third checkpoint, the provider before left the first."""
    world = running()
    world.commit()
    world.commit()
    world.lose()
    world.settle()
    world.now += POLICY.recovery_window_s + POLICY.patience_s
    world.settle()
    assert world.job.state == "WAITING_CAPACITY"
    world.set_job(state=JobState.AUCTIONING)
    first = world.snapshot.checkpoints[0]
    world.snapshot = replace(world.snapshot, reach=Reach(START, met, first, lost_s))
    return world


def given_up(world: World, waited: float) -> list[m.Move]:
    return [move for move in plan(world.snapshot, START + waited, world.policy) if isinstance(move, m.RewindHead)]


@pytest.mark.parametrize(
    ("met", "lost_s", "wait"),
    [
        (False, 5.0, POLICY.unmet_wait_s),
        (False, 40_000.0, 40_000.0),
        (True, 5.0, POLICY.untaken_wait_s),
        (True, 40_000.0, 40_000.0),
    ],
)
def test_a_head_that_nobody_takes_is_given_up_after_as_long_as_that_costs(
    met: bool, lost_s: float, wait: float
) -> None:
    world = untaken(met=met, lost_s=lost_s)
    assert not given_up(world, wait - 1)
    (move,) = given_up(world, wait)
    assert isinstance(move, m.RewindHead)
    assert (move.seq, move.manifest, move.corrupt) == (1, world.snapshot.checkpoints[0].manifest, False)


def test_what_came_after_is_given_up_with_it_and_others_are_asked_anew() -> None:
    world = untaken(met=False, lost_s=5.0)
    for move in plan(world.snapshot, START + POLICY.unmet_wait_s, world.policy):
        world._apply(move)
    world.snapshot = replace(world.snapshot, reach=None)
    assert (world.job.head_seq, world.job.state) == (1, "AUCTIONING")
    assert [point.seq for point in world.snapshot.checkpoints] == [1]
    world.settle()
    assert world.snapshot.auctions[-1].closed_at is None, "the next call for bids is for the earlier checkpoint"
