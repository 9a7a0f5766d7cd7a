"""From deposit to running: auction, award, prepare and open side by side, fencing time, start."""

from dataclasses import replace

from everlease.domain.lease import LeaseState
from everlease.domain.liveness import fenced_at
from everlease.domain.snapshot import Award, Snapshot
from recovery import moves as m
from recovery.planner.leases import fencing_time
from tests.support.model import JOB, NODES, POLICY, RATE, World, escrow, new_job

A, B, C = NODES[:3]


def kinds(world: World) -> list[str]:
    return [move.kind for _, _, move in world.moved if isinstance(move, m.IssueCommand)]


def opens(world: World) -> list[m.EnqueueOpen]:
    return [move for _, _, move in world.moved if isinstance(move, m.EnqueueOpen)]


def held(world: World) -> Award:
    award = world.snapshot.award
    assert award is not None
    return award


def awarded(*, rate: int = RATE // 2) -> World:
    world = World()
    world.settle()
    world.offer(A, rate=rate)
    world.now += POLICY.auction_window_s
    world.settle()
    assert world.job.state == "ALLOCATING"
    return world


def test_a_job_waits_for_its_deposit() -> None:
    world = World(Snapshot(job=new_job()))
    world.settle()
    assert world.job.state == "PENDING"
    world.now = world.job.order.deadline + 1
    world.settle()
    assert world.job.state == "FAILED"
    assert "not paid in time" in world.job.reason


def test_the_award_prepares_and_opens_side_by_side_and_starts_when_both_are_done() -> None:
    world = awarded()
    assert kinds(world) == ["prepare"]
    assert len(opens(world)) == 1
    world.mine()
    world.settle()
    assert world.job.state == "PREPARING"
    assert kinds(world) == ["prepare"], "no start before the node is ready"
    world.answer("prepare")
    world.settle()
    assert kinds(world) == ["prepare", "start"]
    world.answer("start")
    world.settle()
    assert world.job.state == "RUNNING"


def test_the_auction_ends_as_soon_as_every_asked_node_has_answered() -> None:
    world = World()
    world.settle()
    world.offer(A)
    auction = world.snapshot.auctions[-1]
    asked = frozenset({A, B})
    for declined in (frozenset({C}), frozenset({A, C})):
        world.snapshot = replace(world.snapshot, auctions=(replace(auction, asked=asked, declined=declined),))
        world.settle()
        assert world.job.state == "AUCTIONING", "others' answers, or two of one node, stand for nobody"
    world.snapshot = replace(world.snapshot, auctions=(replace(auction, asked=asked, declined=frozenset({B})),))
    world.settle()
    assert world.job.state == "ALLOCATING"


def test_with_no_bid_at_the_end_of_its_window_an_auction_waits_for_the_slow() -> None:
    world = World()
    world.settle()
    world.now += POLICY.auction_window_s
    world.settle()
    assert (world.job.state, world.job.due_at) == ("AUCTIONING", world.now + POLICY.patience_s)
    world.offer(A)
    world.settle()
    assert world.job.state == "ALLOCATING"


def test_the_winner_is_paid_the_second_price() -> None:
    world = World()
    world.settle()
    world.offer(A, rate=1000)
    world.offer(B, rate=5000)
    world.now += 2
    world.settle()
    assert held(world).node == A
    assert 1000 < held(world).rate_per_hour <= 5000


def test_a_failed_preparation_goes_to_another_node_and_its_lease_is_suspended_with_the_next() -> None:
    world = awarded()
    world.answer("prepare", ok=False, error="no such image")
    world.settle()
    assert world.job.state == "AUCTIONING"
    assert kinds(world)[-1] == "stop"
    world.mine()
    world.now += 1
    world.settle()
    assert world.snapshot.auctions[-1].excluded.keys() == {A}
    assert world.snapshot.lease("lease-1") is not None, "its open was mined all the same"
    world.offer(B)
    world.now += 2
    world.settle()
    world.now += world.job.order.max_silence
    world.settle()
    assert (opens(world)[-1].settle_lease, opens(world)[-1].settle_how) == ("lease-1", "suspend")
    assert "lease-1" not in world.snapshot.receipts, "a final receipt would clear it, whoever's fault it was"


def test_a_reverted_open_is_followed_by_the_next_auction() -> None:
    world = awarded()
    world.mine(ok=False, error="SlotUsed()")
    world.settle()
    assert world.job.state == "AUCTIONING"
    assert world.snapshot.awards[-1].outcome == "open_failed"


def test_a_reverted_open_that_a_reorg_mines_after_all_is_closed_by_the_next() -> None:
    """Recovery doesn't wait for finality: the next node is chosen at once, and the old lease is left over."""
    world = awarded()
    world.mine(ok=False, error="SlotUsed()")
    world.settle()
    assert world.turn_round()
    for _ in range(2):
        world.offer(*NODES)
        world.now += 2
        world.settle()
        world.mine()
        world.settle()
    assert (opens(world)[-1].settle_lease, opens(world)[-1].settle_how) == ("lease-1", "close")
    assert world.job.state == "PREPARING", "the bids of the auction that ran were for the epoch now taken: one more"


def test_an_open_that_came_too_early_for_the_chains_clock_is_sent_again() -> None:
    world = awarded()
    world.mine(ok=False, error="the contract reverted: NotSilent(seenAt=1, maxSilence=5)")
    world.now += 1
    world.settle()
    assert [move.action_key for move in opens(world)] == [f"open/{JOB}/1/0", f"open/{JOB}/1/1"]
    world.mine()
    world.settle()
    assert world.job.state == "PREPARING"


def test_a_chain_that_stands_still_does_not_keep_the_job_in_allocating_for_ever() -> None:
    world = awarded()
    for _ in range(POLICY.max_attempts):
        world.mine(ok=False, error="the contract reverted: NotSilent(seenAt=1, maxSilence=5)")
        world.now += 2.0**POLICY.max_attempts
        world.settle()
    assert len(opens(world)) == POLICY.max_attempts
    assert world.job.state == "AUCTIONING", "by another auction, with bids that are good for longer"


def test_an_escrow_that_cannot_pay_is_exhausted_until_it_is_topped_up() -> None:
    world = World(Snapshot(job=new_job(), escrow=escrow(balance=2000)))
    world.settle()
    world.offer(A, rate=RATE)
    world.now += 2
    world.settle()
    assert world.job.state == "EXHAUSTED"
    assert "top it up" in world.job.reason
    world.snapshot = replace(world.snapshot, escrow=escrow(balance=10**8))
    world.settle()
    assert world.job.state == "AUCTIONING"


def test_a_used_up_order_is_exhausted_until_it_is_extended() -> None:
    world = World(Snapshot(job=new_job(), escrow=escrow(epochs=5, max_epochs=5)))
    world.settle()
    assert (world.job.state, world.job.reason) == ("EXHAUSTED", "all 5 leases of the order are used up: extend it")
    world.snapshot = replace(world.snapshot, escrow=escrow(epochs=5, max_epochs=6))
    world.settle()
    assert world.job.state == "AUCTIONING"


def test_after_a_loss_suspend_goes_with_open_and_start_waits_for_the_fencing_time() -> None:
    world = World()
    world.run(A)
    world.now += 10
    world.beat()
    beat = world.now
    world.commit()
    assert world.lose()
    world.settle()
    world.offer(B)
    world.now += 0.5
    world.settle()
    assert world.job.state == "ALLOCATING"
    world.mine()
    world.answer("prepare")
    world.settle()
    lease = world.snapshot.lease("lease-1")
    assert lease is not None
    assert (opens(world)[-1].settle_lease, opens(world)[-1].settle_how) == ("lease-1", "suspend")
    world.mine()
    world.settle()
    assert world.job.state == "PREPARING"
    assert world.job.due_at == fenced_at(beat, POLICY.liveness)
    assert kinds(world).count("start") == 1
    world.now = world.job.due_at
    world.settle()
    assert kinds(world).count("start") == 2
    assert world.job.state == "RESTORING"
    assert held(world).restore_seq == 1


def test_suspend_waits_until_the_contract_takes_it() -> None:
    world = World()
    world.run(A)
    started = world.snapshot.leases[0].started_at
    world.now = float(started)
    world.lose()
    world.settle()
    world.offer(B)
    world.now += 0.5
    world.settle()
    assert len(opens(world)) == 1
    assert world.job.due_at == started + world.job.order.max_silence + 1
    world.now = world.job.due_at
    world.settle()
    assert opens(world)[-1].settle_how == "suspend"


def test_a_suspended_lease_needs_no_settling() -> None:
    world = World()
    world.run(A)
    world.lose()
    world.set_lease("lease-1", state=LeaseState.SUSPENDED)
    world.settle()
    world.offer(B)
    world.now += 1
    world.settle()
    assert opens(world)[-1].settle_lease is None


def test_waiting_for_capacity_does_not_keep_a_lost_lease_open() -> None:
    world = World()
    world.run(A)
    world.lose()
    world.settle()
    world.now += 20
    world.settle()
    assert world.job.state == "WAITING_CAPACITY"
    settled = [move for _, _, move in world.moved if isinstance(move, m.EnqueueSettle)]
    assert [(move.lease_id, move.how) for move in settled] == [("lease-1", "suspend")]


def test_a_reorg_within_the_grace_is_sat_out() -> None:
    world = World()
    world.run(A)
    world.reorg()
    world.settle()
    assert world.job.state == "RUNNING"
    assert held(world).unopened_at is not None
    world.mine()
    world.settle()
    assert held(world).unopened_at is None
    world.now += 1000
    world.settle()
    assert world.job.state == "RUNNING"


def test_a_reorg_beyond_the_grace_voids_the_award_and_freezes_its_node() -> None:
    world = World()
    world.run(A)
    world.reorg()
    world.settle()
    world.now += POLICY.reorg_grace_s
    world.settle()
    assert world.job.state == "AUCTIONING"
    assert kinds(world)[-2:] == ["freeze", "stop"]
    world.mine()
    world.now += 1
    world.settle()
    assert world.snapshot.lease("lease-1") is not None, "mined late: left over"
    world.offer(B)
    world.now += 2
    world.settle()
    assert (opens(world)[-1].settle_lease, opens(world)[-1].settle_how) == ("lease-1", "close")


def test_a_lease_that_others_ended_voids_the_award() -> None:
    world = World()
    world.run(A)
    world.set_lease("lease-1", state=LeaseState.CLOSED)
    world.settle()
    assert world.snapshot.awards[0].outcome == "voided"
    assert world.job.reason == "the lease is CLOSED on chain"


def test_a_start_that_never_left_the_gateway_voids_the_award_and_says_nothing_about_the_checkpoint() -> None:
    world = awarded()
    world.mine()
    world.answer("prepare")
    world.settle()
    start = world.snapshot.command("start/1")
    assert start is not None
    failed = replace(start, ok=False, finished_at=world.now, error="the lease is not on chain: no key yet")
    world.snapshot = replace(
        world.snapshot, commands=tuple(failed if c is start else c for c in world.snapshot.commands)
    )
    world.settle()
    assert world.snapshot.awards[0].outcome == "unsent"
    assert world.job.state == "AUCTIONING"


def test_a_late_preparation_is_no_failure_and_others_are_asked_first() -> None:
    world = awarded()
    world.mine()
    world.now += POLICY.prepare_timeout_s
    world.expire()
    world.settle()
    assert world.snapshot.awards[-1].outcome == "late"
    reason = world.snapshot.auctions[-1].excluded[A]
    assert "late" in reason
    assert "failed" not in reason


def begin_restore(world: World, node: str) -> None:
    """From AUCTIONING to RESTORING on the node."""
    world.settle()
    for _ in range(8):
        world.offer(node)
        world.now += 1
        world.settle()
        world.answer("prepare")
        world.mine()
        world.settle()


def test_a_late_start_waits_out_the_fencing_time_and_says_nothing_about_the_checkpoint() -> None:
    world = World()
    world.run(A)
    world.commit()
    world.lose()
    for node in (B, NODES[2]):
        begin_restore(world, node)
        assert world.job.state == "RESTORING"
        sent = tuple(replace(c, sent_at=world.now) if c.kind == "start" else c for c in world.snapshot.commands)
        world.snapshot = replace(world.snapshot, commands=sent)
        world.now += POLICY.start_timeout_s
        world.expire()
        world.settle()
        late = world.snapshot.awards[-1]
        assert late.outcome == "late"
        assert fencing_time(world.snapshot, replace(late, fence=99), POLICY.liveness) > world.now
    assert world.job.head_seq == 1, "two late nodes damage no checkpoint"
    assert world.job.state == "AUCTIONING"


def test_nodes_that_are_late_do_not_end_the_job() -> None:
    world = awarded()
    for _ in range(6):
        world.now += POLICY.prepare_timeout_s
        world.expire()
        world.settle()
        world.mine()
        world.settle()
        for _ in range(16):
            world.offer(*NODES)
            world.now += 2
            world.settle()
    assert world.job.state == "ALLOCATING" or world.job.state == "PREPARING"


def test_a_node_that_cannot_hold_the_checkpoint_does_not_damage_it() -> None:
    world = World()
    world.run(A)
    world.commit()
    world.lose()
    for node in (B, NODES[2]):
        begin_restore(world, node)
        world.answer("start", ok=False, error="the host's kernel is older", unfit="the host's kernel is older")
        world.settle()
        assert world.snapshot.awards[-1].outcome == "unfit"
    assert world.job.head_seq == 1
    assert {B, NODES[2]} <= world.snapshot.auctions[-1].excluded.keys()
