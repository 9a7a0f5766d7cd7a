"""Restores that fail: two providers are heard before a checkpoint is given up, and none of them ends the job alone."""

from dataclasses import replace

import pytest

from tests.support.model import NODES, POLICY, RATE, World
from tests.unit.recovery.test_planner_running import A, B, C, recover, running

D = NODES[3]
OTHERS = "the provider of B and C"


def lost() -> World:
    """At auction, with two checkpoints; B and C are one provider's."""
    world = running()
    world.providers = {B: OTHERS, C: OTHERS}
    world.commit()
    world.lose()
    return world


def test_a_failed_restore_goes_to_another_node_then_to_the_checkpoint_before_then_fails() -> None:
    world = running()
    world.commit()
    world.lose()
    recover(world, B, ok=False)
    assert (world.job.state, world.job.head_seq) == ("AUCTIONING", 2)
    recover(world, C, ok=False)
    assert world.job.head_seq == 1, "the head went back"
    assert [bool(point.damaged) for point in world.snapshot.checkpoints] == [False, True]
    recover(world, B, ok=False)
    recover(world, C, ok=False)
    assert world.job.state == "FAILED"
    assert "criu said no" in world.job.reason


def test_a_damaged_block_is_tried_on_another_node_which_may_hold_it_in_its_cache() -> None:
    world = running()
    world.commit()
    world.lose()
    recover(world, B, ok=False, damaged=True)
    assert (world.job.state, world.job.head_seq) == ("AUCTIONING", 2)
    recover(world, C)
    assert (world.job.state, world.job.head_seq) == ("RUNNING", 2)


def test_a_damaged_block_gives_way_to_the_checkpoint_before_where_no_other_node_is_there() -> None:
    world = running()
    world.commit()
    world.lose()
    recover(world, B, ok=False, damaged=True)
    world.settle()
    world.now += POLICY.recovery_window_s + POLICY.patience_s + 1
    world.settle()
    assert (world.job.state, world.job.head_seq) == ("WAITING_CAPACITY", 2)
    world.now += POLICY.capacity_wait_s + 1
    recover(world, B)
    assert (world.job.state, world.job.head_seq) == ("RUNNING", 1)


def fail_for_long(world: World, *nodes: str, **result: object) -> None:
    """An hour in which these nodes alone bid, and fail each restore."""
    for _ in range(3600):
        world.offer(*nodes)
        world.now += 1
        world.settle()
        world.answer("prepare")
        world.mine()
        world.settle()
        world.answer("start", ok=False, error="criu said no", **result)
        world.settle()


def comes(world: World, node: str, *, ok: bool = True) -> None:
    """Another node connects, and has the job."""
    world.snapshot = replace(world.snapshot, news_at=world.now)
    recover(world, node, ok=ok)


def test_two_hosts_of_one_provider_do_not_take_a_checkpoint_back_nor_end_the_job() -> None:
    world = lost()
    fail_for_long(world, B, C)
    assert (world.job.state, world.job.head_seq) == ("WAITING_CAPACITY", 2)
    assert [award.node for award in world.snapshot.awards] == [A, B, C], "each once"
    comes(world, D)
    assert (world.job.state, world.job.head_seq) == ("RUNNING", 2)


def test_after_a_failed_restore_other_providers_are_asked_first() -> None:
    world = lost()
    recover(world, B, ok=False)
    world.settle()
    assert "its others are asked again after" in world.snapshot.auctions[-1].excluded[OTHERS]
    world.offer(C, rate=1)
    world.offer(D, rate=RATE)
    world.now += POLICY.recovery_window_s
    world.settle()
    assert world.snapshot.awards[-1].node == D


@pytest.mark.parametrize("nodes", [(B,), (B, C)])
def test_a_provider_alone_costs_one_checkpoint_at_most_and_never_the_job(nodes: tuple[str, ...]) -> None:
    """It calls sound checkpoints damaged while nobody else is there."""
    world = lost()
    fail_for_long(world, *nodes, damaged=True)
    assert (world.job.state, world.job.head_seq) == ("WAITING_CAPACITY", 1)
    assert [award.node for award in world.snapshot.awards] == [A, *nodes, *nodes], "each once for each checkpoint"
    comes(world, D)
    assert (world.job.state, world.job.head_seq) == ("RUNNING", 1)


def test_the_first_checkpoint_is_not_given_up_on_one_providers_word() -> None:
    world = running()
    world.lose()
    fail_for_long(world, B, damaged=True)
    assert (world.job.state, world.job.head_seq) == ("WAITING_CAPACITY", 1)
    comes(world, C, ok=False)
    assert world.job.state == "FAILED"
    assert world.job.reason == "the checkpoint can't be restored: criu said no"
