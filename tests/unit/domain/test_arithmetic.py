"""Auction, money, earning, interval, liveness, reliability: properties that must hold for any numbers."""

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everlease.domain.auction import AuctionTerms, Offer, expected_cost, refusal, run_auction
from everlease.domain.earning import UNSAVED_MARGIN_S, Accrual, Service, accrue, payable
from everlease.domain.interval import CheckpointCost, checkpoint_interval, daly_optimum, loss_bound, shortest_cycle
from everlease.domain.liveness import (
    Liveness,
    LivenessPolicy,
    Sighting,
    fenced_at,
    liveness,
    mean_time_between_losses,
    restarts_count,
)
from everlease.domain.money import InvalidAmount, affordable_seconds, from_units, pay_for, to_units
from everlease.domain.terms import Bid

JOB = "0x" + "11" * 32
TERMS = AuctionTerms(order_hash=JOB, epoch=3, max_rate_per_hour=1_000_000, min_collateral=10, bids_until=1000)

offers = st.builds(
    lambda provider, node, rate, mtbf, missing, speed, slot: Offer(
        Bid(f"0x{provider:040x}", f"0x{node:040x}", JOB, 3, rate, 100, 2000, slot), mtbf, missing, speed, 1000
    ),
    st.integers(1, 4),
    st.integers(1, 9),
    st.integers(0, 1_200_000),
    st.integers(1, 10**6),
    st.integers(0, 10**12),
    st.integers(1, 10**9),
    st.integers(0, 5),
)


def ceiling(_: str) -> int:
    return TERMS.max_rate_per_hour


@given(st.lists(offers, max_size=12), st.randoms())
def test_the_auction_is_a_function_of_the_set_of_bids(found: list[Offer], shuffle: random.Random) -> None:
    shuffled = list(found)
    shuffle.shuffle(shuffled)
    assert run_auction(found, TERMS, ceiling) == run_auction(shuffled, TERMS, ceiling)


@given(st.lists(offers, max_size=12))
def test_the_winner_is_cheapest_and_its_rate_lies_between_its_bid_and_the_ceiling(found: list[Offer]) -> None:
    award = run_auction(found, TERMS, ceiling)
    eligible = [offer for offer in found if refusal(offer, TERMS) is None]
    assert (award is None) == (not eligible)
    if award is None:
        return
    bid = award.offer.bid
    assert all(expected_cost(award.offer, TERMS) <= expected_cost(other, TERMS) for other in eligible)
    assert bid.min_rate_per_hour <= award.rate_per_hour <= TERMS.max_rate_per_hour
    assert len({bid.provider, *(loser.bid.provider for loser in award.runners_up)}) == 1 + len(award.runners_up)


@given(st.lists(offers, min_size=1, max_size=8), st.integers(0, 1_000_000))
def test_bidding_lower_never_loses_and_never_changes_what_a_winner_is_paid(found: list[Offer], lower: int) -> None:
    award = run_auction(found, TERMS, ceiling)
    if award is None:
        return
    winner = award.offer
    others = [offer for offer in found if offer.bid.provider != winner.bid.provider]
    cut = replace(winner, bid=replace(winner.bid, min_rate_per_hour=min(lower, winner.bid.min_rate_per_hour)))
    again = run_auction([cut, *others], TERMS, ceiling)
    assert again is not None
    assert again.offer.bid.provider == winner.bid.provider
    assert again.rate_per_hour <= max(award.rate_per_hour, winner.bid.min_rate_per_hour)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"order_hash": "0x" + "22" * 32}, "another order"),
        ({"epoch": 2}, "epoch 2"),
        ({"min_rate_per_hour": 1_000_001}, "at most 1000000"),
        ({"collateral": 9}, "wants 10"),
        ({"collateral": 1001}, "free stake"),
        ({"deadline": 999}, "expires 1 s before"),
        ({"node": "0xbad"}, "was late"),
        ({"provider": "0xworse"}, "others first"),
    ],
)
def test_what_keeps_a_bid_out(change: dict[str, object], words: str) -> None:
    bid = Bid("0xaa", "0xbb", JOB, 3, 5, 100, 2000, 1)
    terms = replace(TERMS, excluded={"0xbad": "this node was late with the job", "0xworse": "others first"})
    offer = Offer(bid, 1, 0, 1, 1000)
    assert refusal(offer, terms) is None
    reason = refusal(replace(offer, bid=replace(bid, **change)), terms)  # type: ignore[arg-type]
    assert reason is not None
    assert words in reason


@given(st.integers(0, 10**30))
def test_amounts_survive_the_way_through_text(units: int) -> None:
    assert to_units(from_units(units)) == units


@pytest.mark.parametrize("text", ["-1", "0.0000001", "nan", "inf", "one", ""])
def test_what_is_no_amount(text: str) -> None:
    with pytest.raises(InvalidAmount):
        to_units(text)


@given(st.integers(0, 10**18), st.integers(1, 10**12))
def test_affordable_seconds_are_the_most_that_can_be_paid(balance: int, rate: int) -> None:
    seconds = affordable_seconds(balance, rate)
    assert pay_for(rate, seconds) <= balance < pay_for(rate, seconds + 1)


@given(st.lists(st.tuples(st.floats(-5, 50), st.booleans()), max_size=40), st.floats(1, 10))
def test_service_never_falls_never_outruns_the_clock_and_skips_silence(
    beats: list[tuple[float, bool]], max_silence: float
) -> None:
    state, at = Accrual(0.0, 100.0), 100.0
    for step, serving in beats:
        at += step
        after = accrue(state, at, serving, max_silence)
        assert after.earned >= state.earned
        assert after.earned - state.earned <= max(after.seen_at - state.seen_at, 0) + 1e-9
        if not serving or at - state.seen_at > max_silence:
            assert after.earned == state.earned
        assert accrue(after, at, serving, max_silence) == after
        state = after


@given(st.floats(0, 1e4), st.floats(1, 1e7), st.floats(0, 1e4), st.floats(0, 1e5), st.floats(0, 1e4))
def test_the_interval_keeps_the_promise(pause: float, mtbf: float, upload: float, bound: float, least: float) -> None:
    cost = CheckpointCost(pause, upload)
    interval = checkpoint_interval(cost, mtbf, bound, least)
    assert interval >= 0
    assert loss_bound(cost, interval) <= max(bound, pause + upload) + 1e-6


@given(st.floats(0, 1e4), st.floats(1, 1e7), st.floats(0, 1e4), st.floats(0, 1e5), st.floats(0, 1e5))
def test_no_honest_host_is_faster_than_the_pace(
    pause: float, mtbf: float, upload: float, bound: float, least: float
) -> None:
    """Of the agent's checkpoints one is in flight at a time, and the next begins an interval after the last began."""
    interval = checkpoint_interval(CheckpointCost(pause, upload), mtbf, bound, least)
    assert max(interval, pause + upload) >= shortest_cycle(bound, least) - 1e-6


def test_dalys_optimum_at_known_points() -> None:
    assert daly_optimum(0, 3600) == 0
    assert daly_optimum(10_000, 3600) == 3600
    assert daly_optimum(5, 24 * 3600) == pytest.approx(926.3, abs=0.5)


POLICY = LivenessPolicy()


@given(st.floats(0, 100), st.floats(0, 100))
def test_a_node_is_never_lost_while_it_is_heard(seen: float, age: float) -> None:
    verdict = liveness(Sighting(last_seen=seen), seen + age, POLICY)
    assert verdict is not Liveness.LOST, "not before a probe went unanswered"
    assert (verdict is Liveness.ALIVE) == (seen + age - seen < POLICY.suspect_after)


def test_silence_is_probed_once_and_a_closed_socket_waits_its_grace() -> None:
    assert liveness(Sighting(10, probe_sent_at=12.6), 13.5, POLICY) is Liveness.SUSPECT
    assert liveness(Sighting(10, probe_sent_at=12.6), 13.6, POLICY) is Liveness.LOST
    assert liveness(Sighting(13, probe_sent_at=12.6), 16, POLICY) is Liveness.SUSPECT, "an older probe says nothing"
    assert liveness(Sighting(10, disconnected_at=10.5), 11.4, POLICY) is Liveness.SUSPECT
    assert liveness(Sighting(10, disconnected_at=10.5), 11.5, POLICY) is Liveness.LOST


@given(st.floats(0, 200), st.floats(0, 200), st.none() | st.floats(0, 200), st.floats(0, 200))
def test_a_node_that_said_it_restarts_is_lost_later_and_never_by_more_than_the_grace(
    seen: float, age: float, gone: float | None, said: float
) -> None:
    now, plain = seen + age, Sighting(seen, disconnected_at=gone, probe_sent_at=seen + 2.6)
    verdict = liveness(replace(plain, restarting_at=said), now, POLICY)
    before = liveness(plain, now, POLICY)
    excused = before is Liveness.LOST and now < said + POLICY.restart_grace
    assert verdict is (Liveness.SUSPECT if excused else before)


def test_only_a_few_restarts_a_day_count() -> None:
    most = POLICY.max_restarts_a_day
    said = [1000.0 * n for n in range(most)]
    assert restarts_count(said, 50_000, POLICY)
    assert not restarts_count([*said, 50_000], 50_000, POLICY)
    assert restarts_count([*said, 50_000], 86_401, POLICY), "the first is more than a day ago"


@given(st.floats(0, 1e9), st.floats(0.5, 60))
def test_the_fencing_time_covers_drift_and_a_heartbeat_in_flight(seen: float, fence_after: float) -> None:
    policy = LivenessPolicy(fence_after=fence_after)
    assert fenced_at(seen, policy) >= seen + fence_after + 1


def test_reliability_starts_with_a_prior_and_follows_the_record() -> None:
    assert mean_time_between_losses(0, 0) == 86_400
    assert mean_time_between_losses(0, 1) == 43_200
    assert mean_time_between_losses(10 * 86_400, 1) > mean_time_between_losses(86_400, 1)


@given(st.floats(0, 10**6), st.floats(0, 10**6), st.floats(0, 10**6), st.integers(1, 10**6), st.booleans())
def test_nothing_is_paid_beyond_what_was_served_and_little_beyond_what_was_saved(
    forfeited: float, saved: float, served: float, bound: int, in_full: bool
) -> None:
    service = Service(served=forfeited + saved + served, saved=forfeited + saved, forfeited=forfeited)
    to_end = payable(service, as_served=False, in_full=True, max_lost_work=bound)
    to_checkpoint = payable(service, as_served=False, in_full=False, max_lost_work=bound)
    assert 0 <= to_checkpoint <= to_end <= service.served
    assert to_end - to_checkpoint <= bound + UNSAVED_MARGIN_S + 1
    assert payable(service, as_served=True, in_full=in_full, max_lost_work=bound) == int(service.served)


def test_a_lost_host_is_paid_to_its_last_checkpoint() -> None:
    service = Service(served=180.9, saved=120.5, forfeited=20.0)
    assert payable(service, as_served=False, in_full=False, max_lost_work=10) == 100
    assert payable(service, as_served=False, in_full=True, max_lost_work=10) == 160
    assert payable(service, as_served=True, in_full=False, max_lost_work=10) == 180


def test_whoever_saves_nothing_is_paid_what_the_order_lets_it_leave_unsaved() -> None:
    service = Service(served=86_400.0, saved=0.0)
    assert payable(service, as_served=False, in_full=True, max_lost_work=300) == 300 + UNSAVED_MARGIN_S
    assert payable(service, as_served=True, in_full=True, max_lost_work=300) == 86_400
