"""The reserve: what settled prices say, how it rises, and what no bid and no lease of one's own can change."""

import json
import random
import re
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everlease.domain.auction import AuctionTerms, Award, Offer, above_reserve, refusal, run_auction
from everlease.domain.jobspec import Resources
from everlease.domain.reserve import (
    LEAST_PROVIDERS,
    ROUNDS,
    Observation,
    Posted,
    Reserve,
    class_of,
    figure,
    fix,
    wash_cost,
)
from everlease.domain.terms import Bid

ROOT = Path(__file__).parents[3]
SMALL = Resources(gpus=0, cpu_millis=1000, memory_bytes=2 << 30, disk_bytes=1 << 30)
CLASS = class_of(SMALL)
POSTED = Posted(cpu=100_000, gib=20_000, gpu=1_000_000)
JOB = "0x" + "11" * 32
TERMS = AuctionTerms(order_hash=JOB, epoch=3, max_rate_per_hour=1_000_000, min_collateral=10, bids_until=1000)
PROVIDERS = [f"0x{number:040x}" for number in range(1, 8)]

observations = st.builds(
    Observation,
    st.sampled_from([CLASS, CLASS, CLASS, "gpu/1"]),
    st.sampled_from([*PROVIDERS[:2], "0xt1", "0xt2", "0xt3"]),
    st.sampled_from(PROVIDERS),
    st.integers(1, 4),
    st.integers(0, 2_000_000),
    st.integers(0, 10**7),
)
reserves = st.builds(
    Reserve,
    st.integers(0, 1_500_000),
    st.integers(0, 1_000_000),
    st.floats(0, 5),
    st.just(0.0) | st.floats(0.01, 60),
    st.dictionaries(st.sampled_from(PROVIDERS), st.integers(0, 1_500_000)),
)
offers = st.builds(
    lambda provider, node, rate, mtbf, missing, speed: Offer(
        Bid(provider, f"0x{node:040x}", JOB, 3, rate, 100, 2000, 0), mtbf, missing, speed, 1000
    ),
    st.sampled_from(PROVIDERS),
    st.integers(1, 9),
    st.integers(0, 1_200_000),
    st.integers(1, 10**6),
    st.integers(0, 10**12),
    st.integers(1, 10**9),
)
rounds = st.integers(0, ROUNDS)


def auction(found: list[Offer], reserve: Reserve, number: int) -> Award | None:
    return run_auction(found, TERMS, lambda provider: reserve.at(provider, number))


def lone(rate: int, provider: str = PROVIDERS[0]) -> Offer:
    return Offer(Bid(provider, provider, JOB, 3, rate, 100, 2000, 0), 86_400, 0, 1, 1000)


def market(rates: list[int], seconds: int = 3600) -> list[Observation]:
    """One lease a provider, each for a tenant of its own."""
    return [Observation(CLASS, f"0xt{n}", f"0xp{n}", 1, rate, seconds) for n, rate in enumerate(rates)]


# -- the auction under a reserve --


@given(st.lists(offers, max_size=10), reserves, rounds, st.integers(0, 1_200_000))
def test_given_that_it_wins_a_bid_never_changes_its_own_price(
    found: list[Offer], reserve: Reserve, number: int, other: int
) -> None:
    award = auction(found, reserve, number)
    if award is None:
        return
    bid = award.offer.bid
    others = [offer for offer in found if offer.bid.provider != bid.provider]
    again = auction([replace(award.offer, bid=replace(bid, min_rate_per_hour=other)), *others], reserve, number)
    if again is not None and again.offer.bid.provider == bid.provider:
        assert again.rate_per_hour == award.rate_per_hour


@given(st.lists(offers, max_size=10), reserves, rounds)
def test_a_winner_is_paid_between_its_bid_and_its_reserve_and_never_above_the_orders_maximum(
    found: list[Offer], reserve: Reserve, number: int
) -> None:
    award = auction(found, reserve, number)
    able = [o for o in found if refusal(o, TERMS) is None]
    held = above_reserve(found, TERMS, lambda provider: reserve.at(provider, number))
    assert (award is None) == (len(able) == len(held))
    if award is not None:
        bid = award.offer.bid
        cap = min(reserve.at(bid.provider, number), reserve.maximum, TERMS.max_rate_per_hour)
        assert bid.min_rate_per_hour <= award.rate_per_hour <= cap
        assert award.capped == (award.rate_per_hour == cap)
        assert not set(map(repr, held)) & set(map(repr, (award.offer, *award.runners_up)))


@given(st.lists(offers, max_size=8), reserves, rounds, st.randoms())
def test_equal_bids_under_an_equal_reserve_have_an_equal_winner_in_any_order(
    found: list[Offer], reserve: Reserve, number: int, shuffle: random.Random
) -> None:
    shuffled = list(found)
    shuffle.shuffle(shuffled)
    again = Reserve(**json.loads(json.dumps(asdict(reserve))))
    assert auction(shuffled, again, number) == auction(found, reserve, number)


def test_a_lone_bidder_is_paid_the_reserve_and_not_the_orders_maximum() -> None:
    reserve = fix((), SMALL, POSTED, maximum=2_000_000, window_s=1, rise_s=60)
    award = run_auction([lone(70_000)], replace(TERMS, max_rate_per_hour=2_000_000), lambda p: reserve.at(p, 0))
    assert award is not None
    assert (award.rate_per_hour, award.capped) == (140_000, True)


def test_a_second_account_just_below_the_maximum_no_longer_pays() -> None:
    """As among several before: the accomplice's bid was the second price. It is above the reserve, and sets nothing."""
    reserve = fix((), SMALL, POSTED, maximum=1_000_000, window_s=1, rise_s=60)
    accomplice = lone(999_999, PROVIDERS[1])
    for number in range(ROUNDS + 1):
        alone, both = auction([lone(70_000)], reserve, number), auction([lone(70_000), accomplice], reserve, number)
        assert alone is not None
        assert both is not None
        assert both.rate_per_hour <= alone.rate_per_hour
    assert both.rate_per_hour == 999_999, "by then, where nobody asked less in any round before"


def test_what_says_nothing_of_prices() -> None:
    """The reserve set the price, or the tenant bids itself; a rival's bid did where two providers bid below it."""
    reserve = Reserve(500_000, 1_000_000, 1, 60)
    two = auction([lone(70_000), lone(90_000, PROVIDERS[1])], reserve, 0)
    one = auction([lone(70_000), lone(600_000, PROVIDERS[1])], reserve, 0)
    assert one is not None
    assert two is not None
    assert two.rate_per_hour == 90_000
    assert two.priced_by_rivals("0xtenant")
    assert not two.priced_by_rivals(PROVIDERS[1])
    assert not one.priced_by_rivals("0xtenant")


# -- the schedule --


@given(reserves, st.sampled_from(PROVIDERS))
def test_a_reserve_only_rises_and_ends_at_the_orders_maximum(reserve: Reserve, provider: str) -> None:
    rates = [reserve.at(provider, number) for number in range(-1, ROUNDS + 3)]
    assert rates == sorted(rates)
    assert set(rates[ROUNDS + 1 :]) == {reserve.maximum}
    assert rates[0] == min(reserve.own.get(provider, reserve.start), reserve.maximum)
    assert [reserve.round_at(reserve.begins(n)) for n in range(1, ROUNDS + 1)] == (
        list(range(1, ROUNDS + 1)) if reserve.begins(1) < reserve.begins(2) else [ROUNDS] * ROUNDS
    )
    assert reserve.round_at(reserve.window_s + reserve.rise_s) == ROUNDS


def test_the_first_round_lasts_through_the_window() -> None:
    reserve = Reserve(100, 1100, window_s=1, rise_s=60)
    ages = (-5, 0, 1, 6.9, 7, 60.9, 61, 10**6)
    assert [reserve.round_at(age) for age in ages] == [0, 0, 0, 0, 1, 9, 10, 10]
    assert [reserve.at("0xa", number) for number in (0, 1, 9, 10)] == [100, 200, 1000, 1100]


# -- the figure --


@given(st.lists(observations, max_size=30), st.sampled_from([None, *PROVIDERS, "0xt1"]), st.randoms())
def test_the_figure_is_a_function_of_the_set_of_observations(
    found: list[Observation], bidder: str | None, shuffle: random.Random
) -> None:
    shuffled = found * 2
    shuffle.shuffle(shuffled)
    assert figure(shuffled, SMALL, POSTED, bidder) == figure(found, SMALL, POSTED, bidder)


@given(st.lists(observations, max_size=30), st.lists(observations, max_size=10), st.sampled_from(PROVIDERS))
def test_ones_own_leases_never_move_ones_own_reserve(
    found: list[Observation], more: list[Observation], bidder: str
) -> None:
    """Neither those that it has nor any number of others that it gives or takes."""
    own = [replace(seen, provider=bidder) if seen.day % 2 else replace(seen, tenant=bidder) for seen in more]
    assert figure([*found, *own], SMALL, POSTED, bidder) == figure(found, SMALL, POSTED, bidder)
    terms = {"maximum": 10**7, "window_s": 1.0, "rise_s": 60.0}
    bare = [seen for seen in found if bidder not in (seen.provider, seen.tenant)]
    fixed = fix([*found, *own], SMALL, POSTED, **terms)  # type: ignore[arg-type]
    assert fixed.at(bidder, 0) == fix(bare, SMALL, POSTED, **terms).at(bidder, 0)  # type: ignore[arg-type]


@given(st.lists(observations, max_size=30), st.integers(0, 10**6))
def test_in_a_recovery_the_last_host_gains_nothing_by_its_own_rate(found: list[Observation], rate: int) -> None:
    last = PROVIDERS[0]
    fixed = fix(found, SMALL, POSTED, maximum=10**6, window_s=0.3, rise_s=5, last=(last, rate))
    assert fixed.at(PROVIDERS[1], 0) == rate
    assert fixed.at(last, 0) <= min(figure(found, SMALL, POSTED, last).rate, 10**6)


def test_the_median_is_weighted_by_paid_seconds_and_takes_five_providers() -> None:
    assert LEAST_PROVIDERS == 5
    assert figure(market([10, 20, 30, 40]), SMALL, POSTED).rate == POSTED.rate(SMALL) == 140_000
    assert figure(market([10, 20, 30, 40, 50]), SMALL, POSTED).rate == 30
    long = [*market([10, 20, 30, 40, 50]), Observation(CLASS, "0xt", "0xp4", 1, 50, 10 * 3600)]
    assert figure(long, SMALL, POSTED).rate == 50
    assert figure(long, SMALL, POSTED, "0xp4").rate == 140_000, "four are left"


def test_of_a_tenant_and_provider_one_lease_a_day_counts_the_longest() -> None:
    many = [replace(seen, rate=60 + n, seconds=3600 - n) for n in range(100) for seen in market([0] * 7)[6:]]
    assert figure([*market([10, 20, 30, 40, 50, 60]), *many], SMALL, POSTED).rate == 40


def test_leases_of_another_class_say_nothing() -> None:
    other = [replace(seen, price_class="gpu/2") for seen in market([1, 2, 3, 4, 5])]
    assert figure(other, SMALL, POSTED).providers == 0


@pytest.mark.parametrize(
    ("resources", "named", "posted"),
    [
        (Resources(2, 8000, 64 << 30, 1), "gpu/2", 8 * 100_000 + 64 * 20_000 + 2_000_000),
        (Resources(0, 1000, 1 << 30, 1), "cpu/1/1", 120_000),
        (Resources(0, 100, 64 << 20, 1), "cpu/1/1", 120_000),
        (Resources(0, 1001, (2 << 30) + 1, 1), "cpu/2/4", 260_000),
        (Resources(0, 5000, 8 << 30, 1), "cpu/8/8", 660_000),
    ],
)
def test_classes_and_posted_prices(resources: Resources, named: str, posted: int) -> None:
    assert (class_of(resources), POSTED.rate(resources)) == (named, posted)


# -- what it costs to move it --


@given(st.lists(st.integers(1, 1000), min_size=5, max_size=20), st.integers(1, 1000), st.integers(1, 10**5))
def test_the_cost_of_moving_the_figure_is_exact(rates: list[int], rate: int, seconds: int) -> None:
    """One second less, and the median stays below."""
    found = market(rates, seconds)
    needed = max(sum(seconds if seen.rate < rate else -seen.seconds for seen in found) + 1, 0)
    wash = Observation(CLASS, "0xwash", "0xwasher", 1, rate, needed)
    assert figure([*found, wash], SMALL, POSTED).rate >= rate
    if needed > 1:
        assert figure([*found, replace(wash, seconds=needed - 1)], SMALL, POSTED).rate < rate
    assert wash_cost(found, rate, 100) == -(-rate * needed * 100 // 36_000_000)


def test_the_example_in_the_threat_model_is_computed_from_the_code() -> None:
    """20 providers, each paid 20 hours in the window at 0.08 an hour; somebody wants 0.16."""
    fee_bps = json.loads((ROOT / "scripts/terms.json").read_text())["feeBps"]
    honest = market([80_000] * 20, 20 * 3600)
    hours = sum(seen.seconds for seen in honest) / 3600
    cost = wash_cost(honest, 160_000, fee_bps) / 1e6
    said = f"{hours:g} paid hours at $0.08 an hour to $0.16 costs ${cost:.2f} in fees at {fee_bps} basis points"
    assert said in re.sub(r"\s+", " ", (ROOT / "docs/threat-model.md").read_text())
