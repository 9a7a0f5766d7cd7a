"""Calls for bids, and the bids that come back."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from everlease.chain import typed_data
from everlease.db import Tx, auctions, nodes, queries, restores
from everlease.db.auctions import HeldBid, OpenAuction
from everlease.db.models.jobs import AuctionRow
from everlease.db.models.nodes import NodeRow
from everlease.domain import auction as rules
from everlease.domain import jobspec
from everlease.domain.auction import AuctionTerms, Offer
from everlease.domain.terms import Bid
from everlease.wire.node import BidMessage, CallForBids, Decline
from everlease.wire.terms import BidModel, OrderModel
from marketplace.gateway.fitness import unfit
from marketplace.parts import Parts


@dataclass(frozen=True, slots=True)
class Calling:
    """A call and the nodes it is for; each gateway sends it to those that are connected to it."""

    message: CallForBids
    nodes: frozenset[str]


def calls(parts: Parts, auction_id: int | None = None, only: str | None = None) -> list[Calling]:
    """The calls of all open auctions, or of one; who was asked and who was unfit is written down.

    With ``only`` that node alone is looked at, but for auctions with which nobody was looked at yet.
    """
    with parts.db.transaction() as tx:
        found = auctions.open_auctions(tx, auction_id)
        alone = {item.auction.id for item in found if only is not None and (item.auction.asked or item.auction.unfit)}
        rows = nodes.connected(tx, only if len(alone) == len(found) else None) if found else ()
        free = queries.free_stakes(tx, {row.provider for row in rows})
        called = []
        for item in found:
            looked_at = [row for row in rows if row.address == only or item.auction.id not in alone]
            called.append(_call(tx, item, looked_at, free, parts.clock()))
        return called


def held(parts: Parts, auction_id: int) -> list[HeldBid]:
    """The bids of an auction that did not win so far: they ask more than its reserve."""
    with parts.db.transaction() as tx:
        return auctions.held_bids(tx, auction_id)


@dataclass(frozen=True, slots=True)
class Judged:
    """A bid that was looked at: why it is refused, or None. ``ask_chain``: no key signed it, a wallet may have.
    ``auction``: None where that is closed.
    """

    auction: AuctionRow | None
    bid: Bid
    refusal: str | None
    ask_chain: bool = False


def judge(parts: Parts, node: str, provider: str, message: BidMessage) -> Judged:
    """A bid by everything that the database and the signature itself say."""
    bid = _normalised(message.signed.bid.to_domain())
    with parts.db.transaction() as tx:
        found = auctions.open_auctions(tx, message.auction_id)
        authority = queries.node_authority(tx, node)
        # What the mirror doesn't know yet it may know when the auction is decided.
        free = queries.free_stakes(tx, [provider]).get(provider, bid.collateral)
    if not found:
        return Judged(None, bid, "the auction is closed")
    reason = _wrong_party(bid, node, provider)
    if reason is None and authority is not None and not (authority.active and authority.provider == provider):
        reason = f"{provider} has revoked node {node}"
    reason = reason or rules.refusal(Offer(bid, 1, 0, 1, free), _terms(found[0], int(parts.clock())))
    if reason is not None:
        return Judged(found[0].auction, bid, reason)
    digest, signature = typed_data.bid_digest(parts.deployment.escrow_domain, bid), message.signed.signature
    by_key = any(typed_data.verify(digest, signer, signature) for signer in (bid.node, bid.provider))
    return Judged(found[0].auction, bid, None, not by_key)


def ask_chain(parts: Parts, node: str, message: BidMessage, judged: Judged) -> Judged:
    """Whether the bid is signed by its provider's wallet (ERC-1271). Raises RpcUnavailable."""
    digest = typed_data.bid_digest(parts.deployment.escrow_domain, judged.bid)
    if typed_data.verify(digest, judged.bid.provider, message.signed.signature, parts.chain):
        return replace(judged, ask_chain=False)
    reason = "the bid is signed neither by the node nor by its provider, for this chain and escrow"
    return replace(judged, refusal=reason, ask_chain=False)


def keep(parts: Parts, node: str, provider: str, message: BidMessage, judged: Judged) -> None:
    """Keep a bid that was judged. A refused one counts as a decline, unless the node has bid before."""
    if judged.auction is None:
        return
    bid = BidModel.from_domain(judged.bid).model_dump()
    with parts.db.transaction() as tx:
        if judged.refusal is not None:
            auctions.add_decline(tx, judged.auction, node, f"its bid was refused: {judged.refusal}")
        else:
            auctions.add_bid(tx, judged.auction, node, provider, bid, message.signed.signature, message.missing_bytes)


def take_decline(parts: Parts, node: str, message: Decline) -> None:
    """Note that a node which was asked doesn't want the job."""
    with parts.db.transaction() as tx:
        for item in auctions.open_auctions(tx, message.auction_id):
            auctions.add_decline(tx, item.auction, node, message.reason)


def _call(tx: Tx, item: OpenAuction, rows: list[NodeRow], free: Mapping[str, int], now: float) -> Calling:
    auction, job, head = item.auction, item.job, item.checkpoint
    spec = jobspec.from_dict(job.spec)
    requirements = restores.requirements(tx, job, auction.plan, auction.mode)
    wanted = max(int(job.order["min_collateral"]), 1)
    reasons: dict[str, str] = {}
    fit: set[str] = set()
    for row in rows:
        reason = _not_now(row, auction.excluded, now) or _too_poor(free.get(row.provider, wanted), wanted)
        reason = reason or unfit(row.facts, spec, auction.mode, requirements)
        if reason is None:
            fit.add(row.address)
        else:
            reasons[row.address] = reason
    waited_for = {row.address for row in rows if row.address in fit and row.provider in free}
    auctions.note_asked(tx, auction.id, waited_for, reasons)
    message = CallForBids(
        seq=0,
        auction_id=auction.id,
        order=OrderModel.model_validate(job.order),
        order_hash=job.id,
        order_signature=job.order_signature,
        spec=job.spec,
        epoch=auction.epoch,
        closes_in_s=item.closes_in_s,
        bids_until=int(item.auction.bids_until.timestamp()),
        checkpoint_requirements=requirements,
        image_digest=job.image_digest,
        checkpoint=head.manifest if head is not None else None,
        checkpoint_bytes=head.logical_bytes if head is not None else 0,
    )
    return Calling(message, frozenset(fit))


def _not_now(row: NodeRow, excluded: dict[str, str], now: float) -> str | None:
    for address in (row.address, row.provider):
        if address in excluded:
            return excluded[address]
    if row.draining:
        return "the node is draining"
    if row.shun_until is not None and row.shun_until.timestamp() > now:
        return f"the node dropped out {row.losses} times and has to wait"
    return None


def _too_poor(free: int, wanted: int) -> str | None:
    """Who has nothing to lose is neither told of the job nor waited for."""
    return None if free >= wanted else f"its provider has {free} of free stake, the order wants {wanted}"


def _wrong_party(bid: Bid, node: str, provider: str) -> str | None:
    if bid.node != node:
        return f"the bid names node {bid.node}, this is {node}"
    if bid.provider != provider:
        return f"the bid names provider {bid.provider}, this node works for {provider}"
    return None


def _terms(item: OpenAuction, now: int) -> AuctionTerms:
    order = item.job.order
    return AuctionTerms(
        order_hash=item.job.id,
        epoch=item.auction.epoch,
        max_rate_per_hour=int(order["max_rate_per_hour"]),
        min_collateral=int(order["min_collateral"]),
        bids_until=max(int(item.auction.bids_until.timestamp()), now),
        excluded=item.auction.excluded,
    )


def _normalised(bid: Bid) -> Bid:
    return replace(bid, provider=bid.provider.lower(), node=bid.node.lower())
