"""What a transaction offers for its place in a block (EIP-1559), and how much more a replacement must."""

from everlease.chain.base import Fees
from everlease.domain.transactions import FeeOffer

MAX_FEE = 500 * 10**9
"""The most that anything of ours pays, wei per gas, whatever an endpoint says the market asks."""


def market_offer(fees: Fees, cap: int = MAX_FEE) -> FeeOffer:
    """Enough for the next blocks, up to the cap."""
    most = min(2 * fees.base_fee + fees.priority_fee, cap)
    return FeeOffer(most, min(fees.priority_fee, most))


def dearer(offered: FeeOffer, market: FeeOffer, cap: int = MAX_FEE, percent: int = 125) -> FeeOffer | None:
    """What replaces a transaction that offers this much: pools take 10 % more. None where the cap forbids it."""
    offer = FeeOffer(
        min(max(market.max_fee, offered.max_fee * percent // 100 + 1), cap),
        min(max(market.priority_fee, offered.priority_fee * percent // 100 + 1), cap),
    )
    return None if offer.max_fee * 100 < offered.max_fee * 110 else offer
