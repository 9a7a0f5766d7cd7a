"""Restores that fail: two providers are heard before a checkpoint is given up, and none of them ends the job alone."""

from collections import Counter
from dataclasses import replace

import pytest

from recovery.moves import RewindHead
from tests.support.model import NODES, POLICY, RATE, World
from tests.unit.recovery.test_planner_preparing import prepare_fails
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


def test_a_failed_restore_goes_to_another_node_then_to_the_checkpoint_before_then_to_the_beginning() -> None:
    world = running()
    world.commit()
    world.lose()
    recover(world, B, ok=False)
    assert (world.job.state, world.job.head_seq) == ("AUCTIONING", 2)
    recover(world, C, ok=False)
    nobody_comes(world)
    assert world.job.head_seq == 1, "the head went back"
    assert [point.seq for point in world.snapshot.checkpoints] == [1]
    recover(world, B, ok=False)
    recover(world, C, ok=False)
    assert world.job.state == "AUCTIONING"
    nobody_comes(world)
    assert (world.job.state, world.job.head_seq) == ("AUCTIONING", 0), "nothing is before the first"
    recover(world, B)
    assert world.job.state == "RUNNING"


def test_junk_of_one_host_does_not_end_a_job_that_another_left_a_checkpoint_of() -> None:
    """However many heads it committed: the second that can't be restored gives way to those of the host before."""
    world = running()
    world.commit()
    world.lose()
    recover(world, B)
    for _ in range(3):
        world.commit()
    world.lose()
    for seq in (5, 4):
        assert world.job.head_seq == seq
        recover(world, C, ok=False)
        recover(world, D, ok=False)
        nobody_comes(world)
    assert (world.job.state, world.job.head_seq) == ("AUCTIONING", 2)
    assert [point.seq for point in world.snapshot.checkpoints] == [2]
    recover(world, C)
    assert (world.job.state, world.job.head_seq) == ("RUNNING", 2)


def test_a_job_none_of_whose_checkpoints_can_be_restored_waits_in_the_end() -> None:
    world = running()
    world.commit()
    world.lose()
    recover(world, B)
    world.commit()
    world.lose()
    for seq in (3, 2):
        assert world.job.head_seq == seq
        recover(world, C, ok=False)
        recover(world, D, ok=False)
        nobody_comes(world)
    fail_for_long(world, C, D)
    assert (world.job.state, world.job.head_seq) == ("WAITING_CAPACITY", 2), "kept, and tried again later each time"


def test_the_marketplaces_own_absence_says_nothing_of_a_checkpoint() -> None:
    """Two hosts failed to restore it; then no gateway held the auctions, however many there were."""
    world = running()
    world.commit()
    world.lose()
    recover(world, B, ok=False)
    recover(world, C, ok=False)
    for _ in range(3):
        world.settle()
        (*rest, last) = world.snapshot.auctions
        world.snapshot = replace(world.snapshot, auctions=(*rest, replace(last, asked=frozenset())))
        world.now += POLICY.recovery_window_s + POLICY.patience_s
        world.settle()
        assert world.job.state == "WAITING_CAPACITY"
        world.now += POLICY.capacity_wait_max_s
    world.settle()
    assert (world.job.state, world.job.head_seq) == ("AUCTIONING", 2)
    nobody_comes(world)
    world.now += POLICY.capacity_wait_max_s
    world.settle()
    assert world.job.head_seq == 1


def nobody_comes(world: World) -> None:
    """An auction that finds nobody, and the wait for capacity after it."""
    world.settle()
    world.now += POLICY.recovery_window_s + POLICY.patience_s
    world.settle()
    assert world.job.state == "WAITING_CAPACITY"
    world.now += POLICY.capacity_wait_s
    world.settle()


def compete(world: World, *bad: str, seconds: int = 60) -> None:
    """Time in which bad hosts bid the least and fail each restore, and D, for its part, would have the job."""
    for _ in range(seconds):
        world.offer(*bad, rate=1)
        world.offer(D)
        world.now += 1
        world.settle()
        world.answer("prepare")
        world.mine()
        world.settle()
        award = world.snapshot.award
        good = award is not None and award.node == D
        world.answer("start", ok=good, error="" if good else "criu said no")
        world.settle()


def test_two_broken_providers_do_not_take_a_checkpoint_back_while_a_third_bids() -> None:
    """However cheap they are."""
    world = running()
    world.commit()
    world.lose()
    compete(world, B, C)
    assert [award.node for award in world.snapshot.awards] == [A, B, C, D]
    assert (world.job.state, world.job.head_seq) == ("RUNNING", 2)


def test_nor_do_they_end_a_job_with_the_checkpoint_before_once_a_third_has_come() -> None:
    world = running()
    world.commit()
    world.lose()
    recover(world, B, ok=False)
    recover(world, C, ok=False)
    nobody_comes(world)
    compete(world, B, C)
    assert (world.job.state, world.job.head_seq) == ("RUNNING", 1)


def test_a_third_that_may_not_have_the_job_yet_is_waited_for_before_a_checkpoint_is_given_up() -> None:
    world = running()
    world.commit()
    world.lose()
    prepare_fails(world, D, seconds=5, retryable=True)
    assert world.snapshot.awards[-1].outcome == "unready"
    compete(world, B, C)
    assert [award.node for award in world.snapshot.awards] == [A, D, B, C, D]
    assert (world.job.state, world.job.head_seq) == ("RUNNING", 2)


def test_a_third_that_never_gets_it_going_does_not_keep_a_damaged_checkpoint_for_ever() -> None:
    """It has had its chance after ``max_restore_tries``."""
    world = running()
    world.commit()
    world.lose()
    recover(world, B, ok=False)
    recover(world, C, ok=False)
    prepare_fails(world, D, seconds=1200, retryable=True)
    at_head = [award for award in world.snapshot.awards if award.node == D and award.restore_seq == 2]
    assert len(at_head) == POLICY.max_restore_tries
    assert world.job.head_seq == 1


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
    assert [move.corrupt for move in rewinds(world)] == [True]


def fail_for_long(world: World, *nodes: str, retryable: bool = False, **result: object) -> None:
    """An hour in which these nodes alone bid, and fail each restore."""
    for _ in range(3600):
        world.offer(*nodes)
        world.now += 1
        world.settle()
        world.answer("prepare")
        world.mine()
        world.settle()
        world.answer("start", ok=False, error="criu said no", retryable=retryable, **result)
        world.settle()


def comes(world: World, node: str, *, ok: bool = True) -> None:
    """Another node connects, and has the job."""
    world.snapshot = replace(world.snapshot, news_at=world.now)
    recover(world, node, ok=ok)


def test_two_hosts_of_one_provider_do_not_take_a_checkpoint_back_nor_end_the_job() -> None:
    world = lost()
    fail_for_long(world, B, C)
    assert (world.job.state, world.job.head_seq) == ("WAITING_CAPACITY", 2)
    assert len(world.snapshot.awards) <= 10, "later each time"
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


@pytest.mark.parametrize("damaged", [False, True])
def test_a_first_checkpoint_that_hosts_of_two_providers_fail_to_restore_gives_way_to_the_beginning(
    damaged: bool,
) -> None:
    """A first host that leaves junk stalls no job. On their word alone that counts as superseded, not as damaged."""
    told = {"damaged": True} if damaged else {}
    world = running()
    world.lose()
    for node in (B, C):
        recover(world, node, ok=False, **told)
        nobody_comes(world)
        assert (world.job.head_seq, world.job.head_manifest is None) == ((1, False) if node == B else (0, True))
    assert [move.corrupt for move in rewinds(world)] == [damaged]
    recover(world, B)
    assert (world.job.state, world.snapshot.awards[-1].restore_manifest) == ("RUNNING", None)


def rewinds(world: World) -> list[RewindHead]:
    return [move for _, _, move in world.moved if isinstance(move, RewindHead)]


def test_a_checkpoint_with_a_predecessor_that_is_gone_is_kept_whoever_fails_to_restore_it() -> None:
    world = running()
    world.commit()
    world.lose()
    world.snapshot = replace(world.snapshot, checkpoints=world.snapshot.checkpoints[1:])
    fail_for_long(world, B, C)
    assert (world.job.state, world.job.head_seq) == ("WAITING_CAPACITY", 2)


def test_a_restore_that_is_worth_another_try_says_nothing_about_the_checkpoint() -> None:
    """The hosts' disks are full, at each of them as often as there are hosts, and no other is there."""
    world = running()
    world.commit()
    world.lose()
    for _ in range(2):
        for node in (B, C):
            recover(world, node, ok=False, retryable=True)
            assert world.snapshot.awards[-1].outcome == "unready"
    nobody_comes(world)
    recover(world, B)
    assert (world.job.state, world.job.head_seq) == ("RUNNING", 2)


def test_a_checkpoint_that_crashes_every_agent_is_given_up_after_many_tries_of_two_providers() -> None:
    world = running()
    world.commit()
    world.lose()
    lost = world.now
    fail_for_long(world, B, C, retryable=True)
    assert (world.job.state, world.job.head_seq) == ("WAITING_CAPACITY", 0)
    tries = Counter((award.node, award.restore_seq) for award in world.snapshot.awards if award.node != A)
    assert tries.keys() == {(node, seq) for node in (B, C) for seq in (2, 1, 0)}
    assert all(tries[node, 2] <= POLICY.max_restore_tries + 1 for node in (B, C))
    ended = [award.ended_at or 0.0 for award in world.snapshot.awards if award.restore_seq == 2]
    assert ended[-1] - lost > POLICY.fault_wait_s(POLICY.max_restore_tries - 1), "each waited longer with each try"


def test_one_provider_whose_agents_all_crash_costs_time_alone() -> None:
    """The job waits, and says why."""
    world = lost()
    fail_for_long(world, B, C, retryable=True)
    assert (world.job.state, world.job.head_seq) == ("WAITING_CAPACITY", 2)
    assert "(criu said no)" in world.snapshot.auctions[-1].excluded[B]
    comes(world, D)
    assert (world.job.state, world.job.head_seq) == ("RUNNING", 2)
