"""The sealed-bid, second-price auction as a pure function: equal input gives equal output.

Bids are compared by what the job is expected to cost in total if that node wins: its rate over the horizon, the work
that is expected to be lost and redone on a node that fails as often as this one did, and the time until the job runs
there, valued at the tenant's own ceiling. The winner is paid the highest rate at which it would still have won
(Vickrey 1961, with scores in the place of bare bids), never above the reserve of the round (everlease.domain.reserve)
and never below its own bid. A bid above the reserve takes no part in the round: it neither wins nor sets a price.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from everlease.domain.reserve import Cap
from everlease.domain.terms import Bid

LONGEST_BID_S = 7200
"""A bid binds its provider to its price: no call asks for one that is good for longer, and no node gives one."""


@dataclass(frozen=True, slots=True)
class Offer:
    """A verified bid with what the marketplace measured about its node.

    ``mtbf_s``: mean seconds between losses of this node; ``missing_bytes``: what it must still fetch of image and
    checkpoint; ``bandwidth_bps``: bytes per second it was measured at.
    """

    bid: Bid
    mtbf_s: int
    missing_bytes: int
    bandwidth_bps: int
    available_collateral: int


@dataclass(frozen=True, slots=True)
class AuctionTerms:
    """What the order and the marketplace set: ceilings in base units, seconds, and the epoch the bids must name.

    ``bids_until``: the unix second until which a bid must be good; ``excluded``: nodes and providers that are not
    asked, and why.
    """

    order_hash: str
    epoch: int
    max_rate_per_hour: int
    min_collateral: int
    bids_until: int
    horizon_s: int = 6 * 3600
    loss_per_failure_s: int = 180
    excluded: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Award:
    """The winner, the rate it is paid (base units per hour), and the losers in the order they would be asked next.

    ``capped``: the reserve set the rate, not another bid.
    """

    offer: Offer
    rate_per_hour: int
    runners_up: tuple[Offer, ...]
    capped: bool

    def priced_by_rivals(self, tenant: str) -> bool:
        """Whether the rate says what such a lease costs: a bid set it, and of two parties apart from the tenant."""
        providers = {offer.bid.provider for offer in (self.offer, *self.runners_up)}
        return not self.capped and tenant not in providers


def refusal(offer: Offer, terms: AuctionTerms) -> str | None:
    """Why this offer can't take part, in words, or None."""
    bid = offer.bid
    if bid.order_hash != terms.order_hash:
        return "the bid names another order"
    if bid.epoch != terms.epoch:
        return f"the bid names epoch {bid.epoch}, the next is {terms.epoch}"
    if bid.min_rate_per_hour > terms.max_rate_per_hour:
        return f"the bid asks {bid.min_rate_per_hour} an hour, the order pays at most {terms.max_rate_per_hour}"
    if bid.collateral < terms.min_collateral:
        return f"the bid offers {bid.collateral} of collateral, the order wants {terms.min_collateral}"
    if offer.available_collateral < bid.collateral:
        return f"the provider has {offer.available_collateral} of free stake, the bid promises {bid.collateral}"
    if bid.deadline < terms.bids_until:
        return f"the bid expires {terms.bids_until - bid.deadline} s before a lease on it may have to be opened"
    return terms.excluded.get(bid.node) or terms.excluded.get(bid.provider)


def served_seconds(offer: Offer, terms: AuctionTerms) -> int:
    """Seconds billed over the horizon: the horizon itself and the work expected to be redone."""
    failures_x1e6 = terms.horizon_s * 1_000_000 // max(offer.mtbf_s, 1)
    return terms.horizon_s + failures_x1e6 * terms.loss_per_failure_s // 1_000_000


def delay_cost(offer: Offer, terms: AuctionTerms) -> int:
    """What waiting for the node to fetch what it misses is worth, in base units × seconds per hour."""
    delay_s = offer.missing_bytes // max(offer.bandwidth_bps, 1)
    return terms.max_rate_per_hour * delay_s


def expected_cost(offer: Offer, terms: AuctionTerms) -> int:
    """Expected total cost of the offer in base units × seconds per hour (divide by 3600 for base units)."""
    return offer.bid.min_rate_per_hour * served_seconds(offer, terms) + delay_cost(offer, terms)


def above_reserve(offers: Iterable[Offer], terms: AuctionTerms, cap: Cap) -> list[Offer]:
    """Offers that could take part but for the reserve of this round."""
    return [o for o in offers if refusal(o, terms) is None and o.bid.min_rate_per_hour > cap(o.bid.provider)]


def run_auction(offers: Iterable[Offer], terms: AuctionTerms, cap: Cap) -> Award | None:
    """Pick the cheapest offer in expectation, one per provider, at the second price or the reserve of its provider if
    that is lower; None if none is acceptable.
    """

    def rank(offer: Offer) -> tuple[int, int, str, str, int, str]:
        bid = offer.bid
        # The last makes the order total: which offer came first never counts.
        return (expected_cost(offer, terms), bid.min_rate_per_hour, bid.provider, bid.node, bid.slot, repr(offer))

    best: dict[str, Offer] = {}
    for offer in sorted((o for o in offers if refusal(o, terms) is None), key=rank):
        if offer.bid.min_rate_per_hour <= cap(offer.bid.provider):
            best.setdefault(offer.bid.provider, offer)
    ranked = sorted(best.values(), key=rank)
    if not ranked:
        return None
    winner, *losers = ranked
    most = min(terms.max_rate_per_hour, cap(winner.bid.provider))
    rate = most
    if losers:
        margin = expected_cost(losers[0], terms) - delay_cost(winner, terms)
        rate = min(rate, margin // served_seconds(winner, terms))
    return Award(winner, max(rate, winner.bid.min_rate_per_hour), tuple(losers), capped=rate == most)
