"""Auctions as the gateway sees them: which nodes were asked, what they answered."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import cast, func, select, update
from sqlalchemy.dialects.postgresql import JSONB, insert

from everlease.db.engine import Tx
from everlease.db.models.jobs import AuctionRow, BidRow, CheckpointRow, JobRow
from everlease.db.outbox import emit
from everlease.domain.reserve import Reserve

CHANNEL = "everlease_auction"
"""NOTIFY payload: the auction's id."""
HELD = "everlease_held"
"""NOTIFY payload: the id of an auction whose bids were all above the reserve of the round."""
DECLINED = "declined: "
"""Begins the reason, in ``unfit``, of a node that was asked and doesn't want the job."""

_now = func.clock_timestamp


@dataclass(frozen=True, slots=True)
class OpenAuction:
    """An auction that still takes bids, its job, the head it restores from, and seconds until its window ends."""

    auction: AuctionRow
    job: JobRow
    checkpoint: CheckpointRow | None
    closes_in_s: float


def open_auctions(tx: Tx, auction_id: int | None = None) -> list[OpenAuction]:
    """Auctions that take bids now, or the one with this id if it does: until recovery closes it, not by the clock."""
    closes_in = func.extract("epoch", AuctionRow.closes_at - _now())
    wanted = (
        select(AuctionRow, JobRow, CheckpointRow, closes_in)
        .join(JobRow, JobRow.id == AuctionRow.job_id)
        .outerjoin(
            CheckpointRow,
            (CheckpointRow.job_id == JobRow.id) & (CheckpointRow.manifest == JobRow.head_manifest),
        )
        .where(AuctionRow.closed_at.is_(None))
        .order_by(AuctionRow.id)
    )
    if auction_id is not None:
        wanted = wanted.where(AuctionRow.id == auction_id)
    return [OpenAuction(auction, job, head, max(float(left), 0.0)) for auction, job, head, left in tx.execute(wanted)]


def note_asked(tx: Tx, auction_id: int, asked: Collection[str], unfit: dict[str, str]) -> None:
    """Record whose answers are waited for and why others are not asked; emits ``auction.asked``.

    Only the first call with a node counts: who fits later may bid, and can't keep the auction open.
    """
    noted = tx.execute(
        update(AuctionRow)
        .where(AuctionRow.id == auction_id, AuctionRow.asked == [], AuctionRow.closed_at.is_(None))
        .values(asked=sorted(asked), unfit=AuctionRow.unfit.concat(cast(unfit, JSONB)))
        .returning(AuctionRow.job_id)
    ).one_or_none()
    if noted is not None:
        emit(tx, "auction.asked", {"job_id": noted.job_id, "auction_id": auction_id, "asked": len(asked)})


def add_bid(
    tx: Tx, auction: AuctionRow, node: str, provider: str, bid: dict[str, Any], signature: str, missing_bytes: int
) -> None:
    """Keep a verified bid, a node's first one; emits ``auction.answered`` when it was the last answer."""
    row = _lock_open(tx, auction.id)
    if row is None:
        return
    tx.execute(
        insert(BidRow)
        .values(
            auction_id=row.id,
            node=node,
            provider=provider,
            bid=bid,
            signature=signature,
            missing_bytes=missing_bytes,
        )
        .on_conflict_do_nothing(index_elements=["auction_id", "node"])
    )
    _note_answer(tx, row)


def add_decline(tx: Tx, auction: AuctionRow, node: str, reason: str) -> None:
    """Note that an asked node doesn't want the job; emits ``auction.answered`` when it was the last answer.

    A node's first answer counts: whoever has bid is bound by that, and what is said twice changes nothing.
    """
    row = _lock_open(tx, auction.id)
    if row is None or node in declined(row) or node in _bidders(tx, row):
        return
    row.unfit = {**row.unfit, node: DECLINED + reason}
    _note_answer(tx, row)


def declined(auction: AuctionRow) -> frozenset[str]:
    """The nodes that were asked and don't want the job."""
    return frozenset(node for node, reason in auction.unfit.items() if str(reason).startswith(DECLINED))


def _lock_open(tx: Tx, auction_id: int) -> AuctionRow | None:
    """The auction's row, locked before anything refers to it (a bid's foreign key shares the lock: two bids at once
    would wait for each other); None where it is closed.
    """
    return tx.scalar(
        select(AuctionRow)
        .where(AuctionRow.id == auction_id, AuctionRow.closed_at.is_(None))
        .with_for_update()
        .execution_options(populate_existing=True)
    )


def _note_answer(tx: Tx, row: AuctionRow) -> None:
    answered = _bidders(tx, row) | declined(row)
    if row.asked and answered.issuperset(row.asked):
        emit(tx, "auction.answered", {"job_id": row.job_id, "auction_id": row.id})


def _bidders(tx: Tx, row: AuctionRow) -> frozenset[str]:
    return frozenset(tx.scalars(select(BidRow.node).where(BidRow.auction_id == row.id)))


def dry_since(tx: Tx, job_id: str) -> datetime | None:
    """When the first of the latest auctions closed in which nobody took the job; None where somebody took it last.

    One that no gateway held, or no node heard of, says nothing of the nodes: the row begins anew after it.
    """
    of_job = AuctionRow.job_id == job_id
    heard = (AuctionRow.asked != []) | (AuctionRow.unfit != {})
    dry = AuctionRow.outcome.startswith("nobody") & (AuctionRow.plan != "migration") & heard
    before = select(func.coalesce(func.max(AuctionRow.id), 0)).where(of_job, ~dry).scalar_subquery()
    return tx.scalar(select(func.min(AuctionRow.closed_at)).where(of_job, AuctionRow.id > before))


def bids_of(tx: Tx, auction_id: int) -> Sequence[BidRow]:
    """The bids of an auction, oldest first."""
    return tx.scalars(select(BidRow).where(BidRow.auction_id == auction_id).order_by(BidRow.id)).all()


def call(
    tx: Tx,
    job_id: str,
    *,
    epoch: int,
    plan: str,
    mode: str,
    excluded: Mapping[str, str],
    opened_at: datetime,
    closes_at: datetime,
    bids_until: datetime,
    reserve: Reserve,
) -> int:
    """Open an auction, its reserve fixed, and wake the gateways when it commits; returns its id."""
    row = AuctionRow(
        job_id=job_id,
        epoch=epoch,
        plan=plan,
        mode=mode,
        excluded=dict(excluded),
        opened_at=opened_at,
        closes_at=closes_at,
        bids_until=bids_until,
        reserve=asdict(reserve),
    )
    tx.add(row)
    tx.flush()
    tx.execute(select(func.pg_notify(CHANNEL, str(row.id))))
    return row.id


def reserve_of(tx: Tx, auction_id: int) -> tuple[Reserve, float]:
    """An auction's reserve as it was fixed, and its age in seconds as this transaction began, by the clock that all
    replicas share: what is decided in one transaction is decided of one instant.
    """
    age = func.extract("epoch", func.now() - AuctionRow.called_at)
    fixed, age_s = tx.execute(select(AuctionRow.reserve, age).where(AuctionRow.id == auction_id)).one()
    return Reserve(**fixed), float(age_s)


def hold(tx: Tx, auction_id: int, number: int, held: Mapping[str, str]) -> None:
    """Note that all bids were above the reserve of a round, and tell each node (``HELD``) why its bid did not win."""
    tx.execute(update(AuctionRow).where(AuctionRow.id == auction_id).values(held_round=number))
    for node, why in held.items():
        tx.execute(update(BidRow).where(BidRow.auction_id == auction_id, BidRow.node == node).values(held=why))
    tx.execute(select(func.pg_notify(HELD, str(auction_id))))


@dataclass(frozen=True, slots=True)
class HeldBid:
    """A bid that did not win so far, and why, in words for its node."""

    node: str
    job_id: str
    why: str


def held_bids(tx: Tx, auction_id: int) -> list[HeldBid]:
    """Bids above the reserve of the newest round of an auction that still takes bids."""
    found = (
        select(BidRow.node, AuctionRow.job_id, BidRow.held)
        .join(AuctionRow, AuctionRow.id == BidRow.auction_id)
        .where(BidRow.auction_id == auction_id, BidRow.held != "", AuctionRow.closed_at.is_(None))
    )
    return [HeldBid(node, job_id, why) for node, job_id, why in tx.execute(found)]


def close(tx: Tx, auction_id: int, outcome: str, winner: dict[str, Any], at: datetime) -> None:
    """Take no more bids and say how it went; a closed one keeps its time and gets the new outcome."""
    row = tx.scalar(
        select(AuctionRow)
        .where(AuctionRow.id == auction_id)
        .with_for_update()
        .execution_options(populate_existing=True)
    )
    if row is not None:
        row.closed_at = row.closed_at or at
        row.outcome, row.winner = outcome[:2000], winner
