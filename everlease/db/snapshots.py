"""Load a domain.snapshot.Snapshot of one job; called under the job's lock, so it is one consistent reading."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import func, select

from everlease.db import awards as awards_of_nodes
from everlease.db import checkpoints, nodes, outbox, records, restores
from everlease.db.auctions import declined, dry_since, reserve_of
from everlease.db.engine import Tx
from everlease.db.models.base import Base
from everlease.db.models.jobs import AuctionRow, AwardRow, BidRow, CheckpointRow, JobRow, ReceiptRow
from everlease.db.models.mirror import EscrowRow, LeaseRow, ProviderRow
from everlease.db.models.nodes import CommandRow, NodeRow
from everlease.db.models.outbox import TxRow
from everlease.db.receipts import terms_of
from everlease.domain import jobspec
from everlease.domain.auction import Offer
from everlease.domain.job import JobState
from everlease.domain.lease import LeaseState
from everlease.domain.liveness import mean_time_between_losses
from everlease.domain.snapshot import (
    FAILING,
    Auction,
    Award,
    ChainTx,
    Checkpoint,
    Command,
    Escrow,
    Goodbye,
    Job,
    Lease,
    Reach,
    SignedOffer,
    Snapshot,
    Unended,
)
from everlease.domain.terms import Bid, Order

_LAST = 64
"""Awards, commands, auctions and transactions of a job that a decision looks back on."""
_WEIGHED = (JobState.AUCTIONING, JobState.MIGRATING)
"""States in which bids are judged, and what hosts said of the job: only then is everybody's history looked up."""
WEEK_S = 7 * 86_400.0
_DEFAULT_BANDWIDTH = 12_500_000


def load(tx: Tx, job: JobRow) -> Snapshot:
    """The snapshot of a locked job."""
    awards = _recent(tx, AwardRow, AwardRow.job_id == job.id, AwardRow.fence)
    auctions = _recent(tx, AuctionRow, AuctionRow.job_id == job.id, AuctionRow.id)
    leases = _recent(tx, LeaseRow, LeaseRow.job_id == job.id, LeaseRow.epoch)
    escrow = tx.scalar(select(EscrowRow).where(EscrowRow.job_id == job.id).execution_options(populate_existing=True))
    commands = _recent(tx, CommandRow, CommandRow.job_id == job.id, CommandRow.id)
    txs = _recent(tx, TxRow, TxRow.job_id == job.id, TxRow.id)
    receipts = _recent(tx, ReceiptRow, ReceiptRow.job_id == job.id, ReceiptRow.signed_at)
    holders = {award.node for award in awards if award.ended_at is None}
    draining = tx.scalars(select(NodeRow.address).where(NodeRow.address.in_(holders), NodeRow.draining)).all()
    winners = {str(auction.winner["node"]) for auction in auctions[-1:] if auction.winner}
    gone = tx.scalars(
        select(NodeRow.address).where(NodeRow.address.in_(winners), NodeRow.disconnected_at.is_not(None))
    ).all()
    weighed = job.state in _WEIGHED
    witnesses = {award.provider for award in awards if award.fence > job.resumed_fence and _tells_against(award)}
    resume_seq = job.wish_detail.get("seq") if job.wish == "resume" else None
    since = auctions[-1].closed_at if auctions and job.state == JobState.WAITING_CAPACITY else None
    return Snapshot(
        job=_job(job),
        awards=tuple(_award(tx, row) for row in awards),
        commands=tuple(_command(row) for row in commands),
        auctions=tuple(_auction(tx, row) for row in auctions),
        offers=_offers(tx, auctions[-1]) if auctions and auctions[-1].closed_at is None else (),
        leases=tuple(_lease(row) for row in leases),
        escrow=_escrow(escrow) if escrow is not None else None,
        txs=tuple(_chain_tx(row) for row in txs),
        checkpoints=_checkpoints(tx, job),
        receipts={row.lease_id: terms_of(row) for row in receipts},
        draining_nodes=frozenset(draining),
        gone_nodes=frozenset(gone),
        news_at=unix(nodes.news_at(tx, since)) if since is not None else None,
        winner_unfit=restores.unfit(tx, job, str(auctions[-1].winner["node"])) if winners else "",
        other=_other(tx, job) if job.state == JobState.AUCTIONING else None,
        unended=_unended(tx, job) if job.state == JobState.AUCTIONING else None,
        reach=_reach(tx, job) if job.state == JobState.AUCTIONING else None,
        resume_seq=resume_seq,
        resume_gone=checkpoints.restorable(tx, job.id, resume_seq) is None if resume_seq else False,
        unserved=records.unserved(tx, job),
        bonds_given=records.bonds_given(tx, job),
        recovered=records.recovered_from(tx, job) if weighed else 0,
        proven=records.proven(tx, witnesses | _bidders(tx, auctions), job.tenant) if weighed else frozenset(),
        young=weighed and len(witnesses) > 1 and records.young(tx, job.tenant),
        unread=any(a.idle_since for a in awards if a.ended_at is None) and outbox.waits(tx, outbox.NOTICE, job.id),
    )


def unix(at: datetime | None) -> float | None:
    """An aware datetime as unix seconds."""
    return None if at is None else at.timestamp()


def _recent(tx: Tx, model: type[Base], where: Any, order: Any) -> list[Any]:
    rows = tx.scalars(
        select(model).where(where).order_by(order.desc()).limit(_LAST).execution_options(populate_existing=True)
    ).all()
    return list(reversed(rows))


def _job(row: JobRow) -> Job:
    return Job(
        id=row.id,
        state=JobState(row.state),
        order=Order(**row.order),
        spec=jobspec.from_dict(row.spec),
        spec_json=row.spec,
        image_manifest=row.image_manifest,
        image_bytes=row.image_bytes,
        image_digest=row.image_digest,
        created_at=row.created_at.timestamp(),
        wish=row.wish,
        fence=row.fence,
        epoch=row.epoch,
        head_seq=row.head_seq,
        head_manifest=row.head_manifest,
        resumed_fence=row.resumed_fence,
        recoveries=row.recoveries,
        due_at=unix(row.due_at),
        reason=row.reason,
    )


def _goodbye(tx: Tx, row: AwardRow) -> Goodbye | None:
    """A current award's only: what was said under the others was acted on."""
    word = row.facts.get("goodbye")
    if word is None or row.ended_at is not None:
        return None
    recent = awards_of_nodes.goodbyes(tx, row.node, float(word["at"]) - WEEK_S)
    return Goodbye(
        at=float(word["at"]),
        head=word.get("head"),
        still=bool(word["still"]),
        why=str(word.get("why", "")),
        reason=str(word.get("reason", "")),
        recent=recent,
    )


def _award(tx: Tx, row: AwardRow) -> Award:
    facts = row.facts
    return Award(
        fence=row.fence,
        epoch=row.epoch,
        node=row.node,
        provider=row.provider,
        lease_id=row.lease_id,
        rate_per_hour=row.rate_per_hour,
        mode=row.mode,
        awarded_at=row.awarded_at.timestamp(),
        auction_id=row.auction_id,
        bid=row.bid,
        restore_seq=row.restore_seq,
        restore_manifest=row.restore_manifest,
        settle=row.settle,
        prepared_at=unix(row.prepared_at),
        opened_at=unix(row.opened_at),
        unopened_at=facts.get("unopened_at"),
        start_sent_at=unix(row.start_sent_at),
        started_at=unix(row.started_at),
        held_at=unix(row.held_at),
        ended_at=unix(row.ended_at),
        outcome=row.outcome,
        last_beat_at=unix(row.last_beat_at),
        last_seen_at=facts.get("last_seen_at"),
        idle_since=unix(row.idle_since),
        storing=row.storing,
        earned_s=row.earned_s,
        saved_s=row.saved_s,
        forfeited_s=row.forfeited_s,
        mtbf_s=float(facts.get("mtbf_s", 86_400.0)),
        restarts=row.restarts,
        exit_code=facts.get("exit_code"),
        exited_at=facts.get("exited_at"),
        host_fault=str(facts.get("host_fault", "")),
        host_faults=int(facts.get("host_faults", 0)),
        asked_checkpoints=int(facts.get("asked_checkpoints", 0)),
        hibernations=int(facts.get("hibernations", 0)),
        goodbye=_goodbye(tx, row),
        final_commit_failed=str(facts.get("final_commit_failed", "")),
        undumpable=str(facts.get("undumpable", "")),
    )


def _command(row: CommandRow) -> Command:
    return Command(
        fence=row.fence,
        node=row.node,
        step=row.step,
        kind=row.kind,
        created_at=row.created_at.timestamp(),
        deadline=row.deadline.timestamp(),
        finished_at=unix(row.finished_at),
        ok=row.ok,
        error=row.error,
        retryable=row.retryable,
        result=row.result or {},
        sent_at=unix(row.sent_at),
    )


def _auction(tx: Tx, row: AuctionRow) -> Auction:
    reserve, age_s = reserve_of(tx, row.id) if row.closed_at is None else (None, 0.0)
    return Auction(
        id=row.id,
        epoch=row.epoch,
        plan=row.plan,
        mode=row.mode,
        opened_at=row.opened_at.timestamp(),
        closes_at=row.closes_at.timestamp(),
        bids_until=int(row.bids_until.timestamp()),
        closed_at=unix(row.closed_at),
        excluded=row.excluded,
        asked=frozenset(row.asked),
        declined=declined(row),
        outcome=row.outcome,
        unfit=row.unfit,
        winner=row.winner,
        reserve=reserve,
        age_s=age_s,
        held_round=row.held_round,
    )


def _offers(tx: Tx, auction: AuctionRow) -> tuple[SignedOffer, ...]:
    """Bids with what is known of their nodes. A node that is not connected any more has none, nor has one of whose
    provider the mirror doesn't know yet.
    """
    served = (
        select(func.coalesce(func.sum(AwardRow.earned_s), 0.0))
        .where(AwardRow.node == BidRow.node)
        .correlate(BidRow)
        .scalar_subquery()
    )
    rows = tx.execute(
        select(BidRow, NodeRow, ProviderRow, served)
        .join(NodeRow, NodeRow.address == BidRow.node)
        .join(ProviderRow, ProviderRow.provider == BidRow.provider)
        .where(BidRow.auction_id == auction.id, NodeRow.connected, NodeRow.liveness == "ALIVE")
        .order_by(BidRow.id)
        .execution_options(populate_existing=True)
    )
    return tuple(_offer(bid, node, provider, served_s) for bid, node, provider, served_s in rows)


def _offer(bid: BidRow, node: NodeRow, provider: ProviderRow, served_s: float) -> SignedOffer:
    bandwidth = node.facts.get("bandwidth_bps")
    offer = Offer(
        bid=Bid(**bid.bid),
        mtbf_s=int(mean_time_between_losses(served_s, node.losses)),
        missing_bytes=bid.missing_bytes,
        bandwidth_bps=int(bandwidth) if isinstance(bandwidth, int | float) and bandwidth > 0 else _DEFAULT_BANDWIDTH,
        available_collateral=max(provider.staked - provider.locked, 0),
    )
    return SignedOffer(offer, bid.signature)


def _bidders(tx: Tx, auctions: Sequence[AuctionRow]) -> set[str]:
    """The providers that bid in the open auction."""
    if not auctions or auctions[-1].closed_at is not None:
        return set()
    return set(tx.scalars(select(BidRow.provider).where(BidRow.auction_id == auctions[-1].id)))


def _tells_against(award: AwardRow) -> bool:
    return award.outcome in FAILING or bool(award.facts.get("undumpable"))


def _lease(row: LeaseRow) -> Lease:
    return Lease(
        lease_id=row.lease_id,
        epoch=row.epoch,
        node=row.node,
        state=LeaseState(row.state),
        rate=row.rate,
        reserve=row.reserve,
        bond=row.bond,
        paid=row.paid,
        earned=row.earned,
        seen_at=row.seen_at,
        started_at=row.started_at,
        ends_at=row.ends_at,
        exit_at=row.closable_at,
        noticed=row.noticed,
    )


def _chain_tx(row: TxRow) -> ChainTx:
    return ChainTx(row.action_key, row.call, row.state, row.error, row.created_at.timestamp())


def _escrow(row: EscrowRow) -> Escrow:
    return Escrow(
        epochs=row.epochs,
        max_epochs=row.max_epochs,
        max_rate_per_hour=row.max_rate_per_hour,
        max_silence=row.max_silence,
        epoch_fee=row.epoch_fee,
        deadline=row.deadline,
        balance=row.balance,
        reserved=row.reserved,
        cancelled=row.cancelled,
    )


def _checkpoints(tx: Tx, job: JobRow) -> tuple[Checkpoint, ...]:
    """The head and the few before it."""
    rows: Sequence[CheckpointRow] = tx.scalars(
        select(CheckpointRow)
        .where(
            CheckpointRow.job_id == job.id,
            CheckpointRow.seq <= job.head_seq,
            CheckpointRow.superseded.is_(False),
            CheckpointRow.damaged == "",
            CheckpointRow.condemned_at.is_(None),
        )
        .order_by(CheckpointRow.seq.desc())
        .limit(4)
        .execution_options(populate_existing=True)
    ).all()
    return tuple(_checkpoint(row, row.block_cids) for row in reversed(rows))


def _checkpoint(row: CheckpointRow, block_cids: Sequence[str] = ()) -> Checkpoint:
    return Checkpoint(
        seq=row.seq,
        fence=row.fence,
        manifest=row.manifest,
        predecessor=row.predecessor,
        mode=row.mode,
        final=row.final,
        block_cids=tuple(block_cids),
    )


def _other(tx: Tx, job: JobRow) -> Checkpoint | None:
    head = restores.committed(tx, job.id, job.head_manifest)
    found = restores.of_others(tx, head, 1) if head is not None else ()
    return _checkpoint(found[0]) if found else None


def _unended(tx: Tx, job: JobRow) -> Unended | None:
    head = restores.committed(tx, job.id, job.head_manifest)
    if head is None or not head.final:
        return None
    author = awards_of_nodes.under_fence(tx, job.id, head.fence)
    if author is not None and author.outcome == "finished":
        return None
    before = checkpoints.newest_program(tx, job.id)
    return Unended(_checkpoint(before) if before is not None else None)


def _reach(tx: Tx, job: JobRow) -> Reach | None:
    since = dry_since(tx, job.id)
    fallback = restores.fallback(tx, job) if since is not None else None
    if since is None or fallback is None:
        return None
    lost_s = restores.worked_s(tx, fallback.before, fallback.head)
    return Reach(since.timestamp(), fallback.met, _checkpoint(fallback.before), lost_s)
