"""Bids above the reserve: they stand, the reserve rises by its schedule, and nobody waits longer than that."""

from dataclasses import replace

from everlease.domain.reserve import ROUNDS, Posted
from recovery import moves as m
from recovery.planner import plan
from tests.support.model import NODES, POLICY, RATE, START, World

A, B, C = NODES[:3]
STARTS_AT = 1_000_000
PRICED = replace(POLICY, posted=Posted(cpu=STARTS_AT, gib=0, gpu=0))
STEP_S = PRICED.reserve_rise_s / ROUNDS
STEP = (RATE - STARTS_AT) // ROUNDS


def called() -> World:
    """A job's first auction, open."""
    world = World(policy=PRICED)
    world.settle()
    return world


def at(world: World, after_s: float) -> None:
    """So long after the auction's call."""
    world.now = world.snapshot.auctions[-1].opened_at + after_s
    world.settle()


def given(world: World) -> list[m.GiveAward]:
    return [move for _, _, move in world.moved if isinstance(move, m.GiveAward)]


def held(world: World) -> list[m.HoldBids]:
    return [move for _, _, move in world.moved if isinstance(move, m.HoldBids)]


def test_a_lone_bidder_that_asks_its_cost_wins_at_once_and_is_paid_the_reserve() -> None:
    world = called()
    world.offer(A, rate=70_000)
    at(world, PRICED.auction_window_s)
    (award,) = given(world)
    assert (award.rate_per_hour, award.priced_by_rivals) == (STARTS_AT, False)


def test_an_accomplice_just_below_the_maximum_no_longer_pays() -> None:
    world = called()
    world.offer(A, rate=70_000)
    world.offer(B, rate=RATE - 1)
    at(world, PRICED.auction_window_s)
    (award,) = given(world)
    assert (award.node, award.rate_per_hour) == (A, STARTS_AT)


def test_a_bid_above_the_reserve_waits_for_its_round_and_is_not_asked_for_again() -> None:
    world = called()
    world.offer(A, rate=STARTS_AT + 3 * STEP + 1)
    at(world, PRICED.auction_window_s)
    assert (world.job.state, world.job.due_at) == ("AUCTIONING", world.now + STEP_S)
    for number in (1, 2, 3):
        at(world, PRICED.auction_window_s + number * STEP_S)
        at(world, PRICED.auction_window_s + number * STEP_S + 1)
        assert world.job.state == "AUCTIONING"
    assert [move.number for move in held(world)] == [0, 1, 2, 3], "noted once a round"
    assert "more than the reserve of" in held(world)[0].held[A]
    at(world, PRICED.auction_window_s + 4 * STEP_S)
    (award,) = given(world)
    assert award.rate_per_hour == STARTS_AT + 4 * STEP
    assert len(world.snapshot.auctions) == 1


def test_the_orders_maximum_is_reached_with_the_schedules_end() -> None:
    world = called()
    world.offer(A, rate=RATE)
    at(world, PRICED.auction_window_s + PRICED.reserve_rise_s - 0.01)
    assert not given(world)
    at(world, PRICED.auction_window_s + PRICED.reserve_rise_s)
    assert given(world)[0].rate_per_hour == RATE


def test_whoever_asks_less_meanwhile_wins_the_next_round() -> None:
    """Waiting for a higher reserve is what the auction can't forbid; it risks the job."""
    world = called()
    world.offer(A, rate=RATE)
    at(world, PRICED.auction_window_s)
    world.offer(B, rate=70_000)
    at(world, PRICED.auction_window_s + STEP_S)
    (award,) = given(world)
    assert (award.node, award.rate_per_hour) == (B, STARTS_AT + STEP)


def test_two_bids_below_the_reserve_pay_the_second_price_and_say_what_it_costs() -> None:
    world = called()
    world.offer(A, rate=70_000)
    world.offer(B, rate=90_000)
    at(world, PRICED.auction_window_s)
    (award,) = given(world)
    assert (award.rate_per_hour, award.priced_by_rivals) == (90_000, True)


def lost() -> World:
    """A job whose host A, paid the reserve, was lost; its recovery's auction is open."""
    world = World(policy=PRICED)
    world.settle()
    world.offer(A, rate=70_000)
    world.run()
    world.beat()
    assert world.snapshot.award is not None
    assert world.snapshot.award.rate_per_hour == STARTS_AT
    world.lose()
    world.settle()
    assert world.snapshot.auctions[-1].plan == "recovery"
    return world


def test_in_a_recovery_the_reserve_starts_at_the_last_rate_and_nobody_waits_longer_than_its_five_seconds() -> None:
    world = lost()
    reserve = world.snapshot.auctions[-1].reserve
    assert reserve is not None
    assert (reserve.at(B, 0), reserve.rise_s) == (STARTS_AT, 5)
    world.offer(B, rate=RATE)
    at(world, PRICED.recovery_window_s + 4.99)
    assert world.job.state == "AUCTIONING"
    at(world, PRICED.recovery_window_s + 5)
    assert (given(world)[-1].node, given(world)[-1].rate_per_hour) == (B, RATE)


def test_in_a_recovery_a_lone_bidder_is_paid_the_last_rate_and_not_the_maximum() -> None:
    world = lost()
    world.offer(B, rate=70_000)
    at(world, PRICED.recovery_window_s)
    assert (given(world)[-1].node, given(world)[-1].rate_per_hour) == (B, STARTS_AT)


def test_replicas_whose_clocks_differ_agree_on_the_round() -> None:
    """The auction's age is the database's: a clock that is fast pays no more, one that is slow waits no longer."""
    world = called()
    world.offer(A, rate=STARTS_AT + 1)
    at(world, PRICED.auction_window_s)
    for apart_s in (0.0, 120.0):
        late = plan(world.snapshot, world.now + apart_s, PRICED)
        assert not any(isinstance(move, m.GiveAward) for move in late)
    auction = replace(world.snapshot.auctions[-1], age_s=PRICED.auction_window_s + STEP_S)
    ready = replace(world.snapshot, auctions=(auction,))
    rates = {
        move.rate_per_hour
        for apart_s in (0.0, 120.0)
        for move in plan(ready, START + PRICED.auction_window_s + apart_s, PRICED)
        if isinstance(move, m.GiveAward)
    }
    assert rates == {STARTS_AT + STEP}


def test_bids_are_good_for_as_long_as_the_reserve_rises() -> None:
    world = called()
    auction = world.snapshot.auctions[-1]
    assert auction.bids_until - auction.opened_at >= PRICED.reserve_rise_s + PRICED.open_timeout_s


def test_a_migration_waits_for_the_reserve_while_the_job_runs_on() -> None:
    world = World(policy=PRICED)
    world.settle()
    world.offer(A, rate=70_000)
    world.run()
    world.set_job(wish="migrate")
    world.settle()
    world.offer(B, rate=RATE)
    at(world, PRICED.migration_window_s + STEP_S)
    assert world.job.state == "MIGRATING"
    at(world, PRICED.migration_window_s + PRICED.reserve_rise_s)
    assert world.snapshot.auctions[-1].winner["rate_per_hour"] == RATE
