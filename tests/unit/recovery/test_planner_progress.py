"""Recoveries are counted, those without progress apart, and each has its bound."""

from everlease.domain.snapshot import Snapshot
from tests.support.model import World, escrow, new_job, spec
from tests.unit.recovery.test_planner_running import A, B, C, recover, running


def test_three_recoveries_without_progress_end_the_job() -> None:
    world = World()
    world.run(A)
    for node in (B, C):
        world.lose()
        recover(world, node)
    world.lose()
    world.settle()
    assert world.job.state == "FAILED"
    assert "no progress" in world.job.reason


def test_more_recoveries_than_the_order_allows_end_the_job() -> None:
    world = running(World(Snapshot(job=new_job(spec=spec(max_recoveries=0)), escrow=escrow())))
    world.lose()
    world.settle()
    assert world.job.state == "FAILED"


def test_progress_under_an_award_that_ends_without_a_recovery_counts_too() -> None:
    """Two losses at the job's beginning, and one a week later, are no three in a row."""
    world = World()
    world.run(A)
    for node in (B, C):
        world.lose()
        recover(world, node)
    assert world.job.barren_recoveries == 2
    world.commit()
    world.goodbye()
    world.settle()
    assert (world.snapshot.awards[-1].outcome, world.job.barren_recoveries) == ("stopped", 0)
    recover(world, A)
    world.lose()
    world.settle()
    assert (world.job.state, world.job.barren_recoveries) == ("AUCTIONING", 1)
