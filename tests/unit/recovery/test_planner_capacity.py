"""Nobody bids: when a job that waits for capacity asks again, and for which mode."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from everlease.domain.jobspec import CheckpointMode
from everlease.domain.snapshot import Snapshot
from tests.support.model import POLICY, World, escrow, new_job, spec


def test_nobody_bids_then_it_asks_later_each_time_and_at_once_when_a_node_has_news() -> None:
    world = World()
    world.settle()
    world.now += 2 + POLICY.patience_s
    world.settle()
    assert world.job.state == "WAITING_CAPACITY"
    assert "no node" in world.job.reason
    assert world.job.due_at == world.now + POLICY.capacity_wait_s
    world.now = world.job.due_at
    world.settle()
    world.now += 2 + POLICY.patience_s
    world.settle()
    assert world.job.due_at == world.now + 2 * POLICY.capacity_wait_s
    world.now += POLICY.capacity_wake_s
    world.snapshot = replace(world.snapshot, news_at=world.now + 5)
    world.settle()
    assert (world.job.state, world.job.due_at) == ("WAITING_CAPACITY", world.now + 5), "it counts only then"
    world.snapshot = replace(world.snapshot, news_at=world.now)
    world.settle()
    assert world.job.state == "AUCTIONING"


def test_files_mode_comes_after_the_whole_wait_and_only_if_the_order_allows() -> None:
    for allowed, mode in ((True, "files"), (False, "process")):
        world = World(Snapshot(job=new_job(spec=spec(fall_back=allowed)), escrow=escrow()))
        world.settle()
        world.now += 2 + POLICY.patience_s
        world.settle()
        assert world.job.due_at is not None
        world.now = world.job.due_at
        world.settle()
        assert world.snapshot.auctions[-1].mode == mode


def test_jobs_without_process_checkpoints_ask_for_files_mode() -> None:
    for mode in (CheckpointMode.FILES, CheckpointMode.NONE):
        world = World(Snapshot(job=new_job(spec=spec(mode)), escrow=escrow()))
        world.settle()
        assert world.snapshot.auctions[-1].mode == "files"


@pytest.mark.parametrize("every", [3.0, 10.0])
def test_files_mode_has_its_turn_however_often_nodes_have_news(every: float) -> None:
    """Each news is a reason to ask again; the modes take turns by time all the same."""
    world = World(Snapshot(job=new_job(spec=spec(fall_back=True)), escrow=escrow()))
    world.settle()
    begun = world.now
    while world.now < begun + 600:
        world.now += 0.5
        closed = world.snapshot.auctions[-1].closed_at
        news = None if closed is None else begun + every * ((closed - begun) // every + 1)
        world.snapshot = replace(world.snapshot, news_at=news)
        world.settle()
    asked = [(auction.opened_at - begun, auction.mode) for auction in world.snapshot.auctions]
    assert all(mode == "process" for at, mode in asked if at < POLICY.capacity_wait_s), "the better one first"
    turn = POLICY.capacity_wait_s + every + POLICY.auction_window_s + POLICY.patience_s
    assert min(at for at, mode in asked if mode == "files") <= turn
    of_files = sum(mode == "files" for _, mode in asked) / len(asked)
    assert 0.4 < of_files < 0.6, of_files


def test_a_migration_that_nobody_wanted_is_no_wait_for_capacity() -> None:
    """A later loss is followed by an auction for process mode: its image is what the checkpoint is."""
    world = World(Snapshot(job=new_job(spec=spec(fall_back=True)), escrow=escrow()))
    world.run()
    world.commit()
    world.set_job(wish="migrate")
    world.settle()
    world.now += POLICY.migration_window_s + POLICY.patience_s
    world.settle()
    assert (world.job.state, world.snapshot.auctions[-1].outcome[:6]) == ("RUNNING", "nobody")
    world.now += 2 * POLICY.capacity_wait_s
    world.beat()
    world.lose()
    world.settle()
    assert (world.job.state, world.snapshot.auctions[-1].mode) == ("AUCTIONING", "process")


def waits(world: World, times: int) -> None:
    """Nobody bids, so often."""
    for _ in range(times):
        world.settle()
        world.now = world.job.due_at or world.now
        world.settle()
        world.now += POLICY.auction_window_s + POLICY.patience_s
        world.settle()
        assert world.job.state == "WAITING_CAPACITY"


def hibernates(world: World) -> None:
    world.set_job(wish="hibernate")
    world.settle()
    assert world.job.state == "HIBERNATED"
    world.now += 86_400
    world.set_job(wish="resume")
    world.settle()


def is_exhausted(world: World) -> None:
    world.snapshot = replace(world.snapshot, escrow=escrow(balance=0))
    world.now = world.job.due_at or world.now
    world.settle()
    assert world.job.state == "EXHAUSTED"
    world.now += 86_400
    world.snapshot = replace(world.snapshot, escrow=escrow())
    world.settle()


@pytest.mark.parametrize("pauses", [hibernates, is_exhausted])
def test_dry_auctions_before_a_pause_say_nothing_of_the_hosts_after_it(pauses: Callable[[World], None]) -> None:
    world = World(Snapshot(job=new_job(spec=spec(fall_back=True)), escrow=escrow()))
    waits(world, 3)
    before = len(world.snapshot.auctions)
    pauses(world)
    assert (world.job.state, world.snapshot.auctions[-1].mode) == ("AUCTIONING", "process")
    assert len(world.snapshot.auctions) == before + 1
    world.now += POLICY.auction_window_s + POLICY.patience_s
    world.settle()
    assert world.job.due_at == world.now + POLICY.capacity_wait_s, "the wait begins anew, too"
    assert [auction.outcome[:5] for auction in world.snapshot.auctions] == ["nobod"] * (before - 1) + ["over:", "nobod"]
