"""What a winner is paid at most, and bids that wait for that to rise (everlease.domain.reserve)."""

from collections.abc import Iterable

from everlease.domain.auction import AuctionTerms, Offer, above_reserve
from everlease.domain.reserve import ROUNDS, Cap, Reserve
from everlease.domain.snapshot import Auction, Snapshot
from recovery.moves import HoldBids
from recovery.planner.draft import Draft
from recovery.planner.policy import Policy


def cap(auction: Auction) -> Cap:
    """The reserve of each provider in the round that the auction's age says."""
    reserve, number = _reserve(auction), round_of(auction)
    return lambda provider: reserve.at(provider, number)


def round_of(auction: Auction) -> int:
    """The round that the auction's age says."""
    return _reserve(auction).round_at(auction.age_s)


def wait_for_rise(draft: Draft, auction: Auction, offers: Iterable[Offer], terms: AuctionTerms) -> bool:
    """Whether bids without a winner wait for the reserve to rise: its next round looks at them again, unasked.

    They need not be given again, and what is new by then counts too. The database's clock made the auction's age, so
    replicas whose clocks differ agree on the round. The last round's reserve is the order's maximum: none waits longer.
    """
    reserve, number = _reserve(auction), round_of(auction)
    held = above_reserve(offers, terms, cap(auction))
    if not held or number >= ROUNDS:
        return False
    draft.wait_until(draft.now + reserve.begins(number + 1) - auction.age_s)
    if number > auction.held_round:
        draft.add(HoldBids(auction.id, number, {offer.bid.node: _why_held(offer, reserve, number) for offer in held}))
    return True


def rise_s(policy: Policy, plan: str) -> float:
    """How long the reserve of an auction takes to reach the order's maximum, after its window."""
    return policy.recovery_rise_s if plan == "recovery" else policy.reserve_rise_s


def order_maximum(snapshot: Snapshot) -> int:
    """Base units per hour that the order pays at most, after extensions."""
    return snapshot.escrow.max_rate_per_hour if snapshot.escrow else snapshot.job.order.max_rate_per_hour


def last_lease(snapshot: Snapshot) -> tuple[str, int] | None:
    """Provider and rate of the last award under which the job ran."""
    return next(((a.provider, a.rate_per_hour) for a in reversed(snapshot.awards) if a.started_at is not None), None)


def _reserve(auction: Auction) -> Reserve:
    assert auction.reserve is not None, "an auction that takes bids has its reserve"
    return auction.reserve


def _why_held(offer: Offer, reserve: Reserve, number: int) -> str:
    most = reserve.at(offer.bid.provider, number)
    return (
        f"the bid asks {offer.bid.min_rate_per_hour} an hour, more than the reserve of {most} in round {number} of "
        f"{ROUNDS}: it stands, and the reserve rises to {reserve.maximum} within {reserve.rise_s:g} s"
    )
