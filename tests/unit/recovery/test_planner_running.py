"""While it runs and as it ends: exits, money, cancel."""

from dataclasses import replace

from recovery import moves as m
from recovery.planner.leases import silent_from
from tests.support.model import NODES, POLICY, World, escrow

A, B, C = NODES[:3]


def running(world: World | None = None) -> World:
    world = world or World()
    world.run(A)
    world.commit()
    return world


def issued(world: World, kind: str) -> list[m.IssueCommand]:
    return [move for _, _, move in world.moved if isinstance(move, m.IssueCommand) and move.kind == kind]


def settles(world: World) -> list[tuple[str, str]]:
    return [(move.lease_id, move.how) for _, _, move in world.moved if isinstance(move, m.EnqueueSettle)]


def recover(world: World, node: str, *, ok: bool = True, retryable: bool = False, **result: object) -> None:
    """From AUCTIONING to an answered start on ``node``."""
    world.settle()
    for _ in range(60):
        world.offer(node)
        world.now += 1
        world.settle()
        world.answer("prepare")
        world.mine()
        world.settle()
        if world.answer("start", ok=ok, error="" if ok else "criu said no", retryable=retryable, **result):
            world.settle()
            return
    raise AssertionError(world.job)


def test_exit_0_waits_for_the_outputs_then_closes_with_a_final_receipt() -> None:
    world = running()
    world.exit(0)
    world.settle()
    assert world.job.state == "RUNNING"
    world.commit(final=True, mode="files")
    world.settle()
    assert world.job.state == "SUCCEEDED"
    assert world.snapshot.receipts["lease-1"].final
    assert settles(world) == [("lease-1", "close")]
    assert len(issued(world, "stop")) == 1


def test_a_failing_program_is_restarted_twice_then_moved_and_others_are_asked_first() -> None:
    world = running()
    for _ in range(2):
        world.exit(3)
        world.settle()
        assert world.job.state == "RUNNING"
        world.answer("restart")
        world.settle()
    assert len(issued(world, "restart")) == 2
    world.exit(3)
    world.settle()
    assert world.snapshot.awards[0].outcome == "moved"
    world.mine()
    world.settle()
    assert A in world.snapshot.auctions[-1].excluded
    recover(world, A)
    assert world.job.state == "RUNNING", "later it may have the job again: nobody else came"


def test_a_restart_that_fails_moves_the_job() -> None:
    world = running()
    world.exit(1)
    world.settle()
    world.answer("restart", ok=False, error="no")
    world.settle()
    assert world.snapshot.awards[0].outcome == "moved"


def test_a_drained_node_is_left_and_tried_again_later() -> None:
    world = running()
    world.snapshot = replace(world.snapshot, draining_nodes=frozenset({A}))
    world.settle()
    assert world.job.state == "MIGRATING"
    world.now += 2 + POLICY.patience_s
    world.settle()
    assert world.job.state == "RUNNING"
    world.now += POLICY.drain_retry_s
    world.settle()
    assert world.job.state == "MIGRATING"


def test_a_provider_that_gave_notice_is_left() -> None:
    world = running()
    world.set_lease("lease-1", noticed=True)
    world.settle()
    assert world.job.state == "MIGRATING"


def test_cancel_stops_signs_and_closes() -> None:
    world = running()
    world.set_job(wish="cancel")
    world.settle()
    assert world.job.state == "CANCELLING"
    world.answer("stop")
    world.settle()
    assert world.job.state == "CANCELLED"
    assert settles(world) == [("lease-1", "close")]


def test_cancel_before_the_lease_is_mined_closes_it_when_it_is() -> None:
    world = World()
    world.settle()
    world.offer(A)
    world.now += 2
    world.settle()
    world.set_job(wish="cancel")
    world.settle()
    world.answer("stop")
    world.settle()
    assert world.job.state == "CANCELLED"
    world.mine()
    world.settle()
    assert settles(world) == [("lease-1", "close")]


def test_cancel_at_auction_closes_the_auction() -> None:
    world = World()
    world.settle()
    world.set_job(wish="cancel")
    world.settle()
    assert world.job.state == "CANCELLED"
    assert world.snapshot.auctions[-1].closed_at is not None


def test_when_money_runs_out_the_job_is_held_closed_and_kept() -> None:
    world = running()
    lease = world.snapshot.leases[0]
    world.set_lease(lease.lease_id, reserve=lease.rate // 3600 * 20)
    world.snapshot = replace(world.snapshot, escrow=escrow(epochs=1, balance=0))
    world.settle()
    assert world.job.state == "RUNNING"
    world.commit()
    world.answer("hold")
    world.settle()
    assert world.job.state == "EXHAUSTED"
    assert settles(world) == [("lease-1", "close")]


def test_before_the_orders_deadline_the_job_is_held_and_kept() -> None:
    world = running()
    world.now = world.job.order.deadline - POLICY.exhaust_margin_s
    world.settle()
    world.commit()
    world.answer("hold")
    world.settle()
    assert world.job.state == "EXHAUSTED"
    assert "deadline" in world.job.reason


def test_a_failing_close_is_tried_again_later_each_time() -> None:
    world = running()
    world.set_job(wish="cancel")
    world.settle()
    world.answer("stop")
    world.settle()
    for attempt in range(1, 4):
        world.mine(ok=False)
        world.now += 0.5
        world.settle()
        assert len(settles(world)) == attempt
        world.now += 2 ** (attempt - 1)
        world.settle()
        assert len(settles(world)) == attempt + 1


def test_hosts_that_die_before_the_job_ran_there_are_not_held_against_it() -> None:
    world = running()
    for node in NODES[1:]:
        world.lose()
        world.settle()
        world.offer(node)
        world.now += 1
        world.settle()
    assert world.job.state == "ALLOCATING"
    assert world.job.recoveries == 1


def test_a_recovery_asks_for_bids_that_outlive_the_silence_of_the_lost_lease() -> None:
    world = running()
    world.snapshot = replace(world.snapshot, escrow=escrow(max_silence=3600, epochs=1))
    world.lose()
    world.settle()
    (lease,) = world.snapshot.leases
    assert world.snapshot.auctions[-1].bids_until >= silent_from(world.snapshot, lease) + POLICY.open_timeout_s - 1


def test_no_bid_is_asked_for_that_would_end_before_its_lease_may_be_opened() -> None:
    """A node binds itself for two hours at most; a tenant may bear more silence."""
    world = running()
    world.snapshot = replace(world.snapshot, escrow=escrow(max_silence=9000, epochs=1))
    before = len(world.snapshot.auctions)
    world.lose()
    world.settle()
    (lease,) = world.snapshot.leases
    silent = silent_from(world.snapshot, lease)
    assert (world.job.state, len(world.snapshot.auctions)) == ("AUCTIONING", before)
    assert world.job.due_at is not None
    assert world.now < world.job.due_at < silent
    world.now = world.job.due_at
    world.settle()
    assert world.snapshot.auctions[-1].bids_until >= silent + POLICY.open_timeout_s - 1
    world.offer(B)
    world.now += 1
    world.settle()
    assert world.job.state == "ALLOCATING"


def test_an_award_whose_bid_ends_before_its_lease_may_be_opened_ends_at_once_and_blames_nobody() -> None:
    world = running()
    world.lose()
    world.settle()
    world.offer(B)
    world.now += 1
    # The lost host was heard of once more, by the chain.
    world.snapshot = replace(world.snapshot, escrow=escrow(max_silence=6400, epochs=1))
    world.settle()
    assert (world.snapshot.awards[-1].node, world.snapshot.awards[-1].outcome) == (B, "outlived")
    assert len([move for _, _, move in world.moved if isinstance(move, m.EnqueueOpen)]) == 1
    assert world.job.state == "AUCTIONING"
    assert B not in world.snapshot.auctions[-1].excluded
