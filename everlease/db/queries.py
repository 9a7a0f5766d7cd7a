"""What the HTTP API and the gateway read across tables: jobs by tenant, a job's money, who answers for a node."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select, tuple_

from everlease.db.engine import Tx
from everlease.db.models.jobs import AwardRow, JobRow, ReceiptRow
from everlease.db.models.mirror import CursorRow, EscrowRow, LeaseRow, NodeAuthRow, ProviderRow
from everlease.db.models.nodes import CommandRow, NodeRow
from everlease.domain.lease import LeaseState


@dataclass(frozen=True, slots=True)
class JobMoney:
    """A job's escrow and leases as mirrored, its newest receipts by lease, and its current award."""

    escrow: EscrowRow | None
    leases: Sequence[LeaseRow]
    receipts: dict[str, ReceiptRow]
    award: AwardRow | None


@dataclass(frozen=True, slots=True)
class MarketFacts:
    """Counts for the market's front page."""

    nodes_alive: int
    jobs_running: int
    jobs_total: int


def jobs_of(
    tx: Tx, tenant: str, state: str | None, before: tuple[datetime, str] | None, limit: int
) -> Sequence[JobRow]:
    """A tenant's jobs, newest first, after the one that ``before`` (created_at, id) names."""
    wanted = select(JobRow).where(JobRow.tenant == tenant)
    if state is not None:
        wanted = wanted.where(JobRow.state == state)
    if before is not None:
        wanted = wanted.where(tuple_(JobRow.created_at, JobRow.id) < before)
    return tx.scalars(wanted.order_by(JobRow.created_at.desc(), JobRow.id.desc()).limit(limit)).all()


def leases_of(tx: Tx, job_id: str) -> Sequence[LeaseRow]:
    """A job's leases as mirrored from the chain, by epoch."""
    return tx.scalars(select(LeaseRow).where(LeaseRow.job_id == job_id).order_by(LeaseRow.epoch)).all()


def lease(tx: Tx, lease_id: str) -> LeaseRow | None:
    """A lease as mirrored from the chain."""
    return tx.get(LeaseRow, lease_id)


def current_award(tx: Tx, job_id: str) -> AwardRow | None:
    """The award that holds the job now, if one does."""
    return tx.scalar(
        select(AwardRow)
        .join(JobRow, (JobRow.id == AwardRow.job_id) & (JobRow.fence == AwardRow.fence))
        .where(AwardRow.job_id == job_id, AwardRow.ended_at.is_(None))
    )


def money_of(tx: Tx, job_id: str) -> JobMoney:
    """Everything that a job's cost is computed from."""
    receipts = tx.scalars(select(ReceiptRow).where(ReceiptRow.job_id == job_id))
    return JobMoney(
        tx.get(EscrowRow, job_id),
        leases_of(tx, job_id),
        {row.lease_id: row for row in receipts},
        current_award(tx, job_id),
    )


def escrow_of(tx: Tx, job_id: str) -> EscrowRow | None:
    """A job's escrow as mirrored, or None before it is funded."""
    return tx.get(EscrowRow, job_id)


def receipts_for(tx: Tx, node: str) -> Sequence[ReceiptRow]:
    """The newest receipts of this node's leases that the chain has not settled yet."""
    unsettled = (LeaseState.ACTIVE.value, LeaseState.SUSPENDED.value)
    return tx.scalars(
        select(ReceiptRow)
        .join(LeaseRow, LeaseRow.lease_id == ReceiptRow.lease_id)
        .where(ReceiptRow.node == node, LeaseRow.state.in_(unsettled))
        .order_by(ReceiptRow.lease_id)
        .limit(256)
    ).all()


def receipt(tx: Tx, lease_id: str) -> ReceiptRow | None:
    """The newest receipt of a lease."""
    return tx.get(ReceiptRow, lease_id)


def is_preparing(tx: Tx, node: str, job_id: str, fence: int) -> bool:
    """Whether this node prepares the job ahead of a migration, under the fence of the host that still runs it.

    It goes on preparing under that fence when the job has just been awarded to it and its next command is on the way.
    """
    told = select(CommandRow.id).where(
        CommandRow.node == node,
        CommandRow.job_id == job_id,
        CommandRow.fence == fence,
        CommandRow.kind == "prepare",
    )
    if tx.scalar(told.limit(1)) is None:
        return False
    mine = select(AwardRow.id).where(AwardRow.job_id == job_id, AwardRow.node == node)
    if tx.scalar(mine.where(AwardRow.fence == fence)) is not None:
        return False
    if tx.scalar(select(JobRow.fence).where(JobRow.id == job_id)) == fence:
        return True
    return tx.scalar(mine.where(AwardRow.fence > fence, AwardRow.ended_at.is_(None)).limit(1)) is not None


def node_authority(tx: Tx, node: str) -> NodeAuthRow | None:
    """Which provider answers for a node, as mirrored."""
    return tx.get(NodeAuthRow, node)


def free_stakes(tx: Tx, providers: Collection[str]) -> dict[str, int]:
    """By provider, the stake that a lease could lock now (base units), as mirrored; without those whom the mirror
    doesn't know: they never staked, or a moment ago.
    """
    rows = tx.scalars(select(ProviderRow).where(ProviderRow.provider.in_(providers)))
    return {row.provider: max(row.staked - row.locked, 0) for row in rows}


def node_page(tx: Tx, after: str | None, limit: int) -> Sequence[NodeRow]:
    """Nodes that ever connected, by address."""
    wanted = select(NodeRow)
    if after is not None:
        wanted = wanted.where(NodeRow.address > after)
    return tx.scalars(wanted.order_by(NodeRow.address).limit(limit)).all()


def providers(tx: Tx, addresses: Sequence[str]) -> dict[str, ProviderRow]:
    """Stake and record of these providers, as mirrored."""
    rows = tx.scalars(select(ProviderRow).where(ProviderRow.provider.in_(addresses)))
    return {row.provider: row for row in rows}


def cursor(tx: Tx) -> CursorRow | None:
    """Where the indexer stands, or None before its first block."""
    return tx.scalar(select(CursorRow).limit(1))


def market_facts(tx: Tx) -> MarketFacts:
    """Counts of nodes and jobs."""
    alive = select(func.count()).where(NodeRow.liveness == "ALIVE", NodeRow.connected)
    running = select(func.count()).where(JobRow.state == "RUNNING")
    total = select(func.count()).select_from(JobRow)
    return MarketFacts(tx.scalar(alive) or 0, tx.scalar(running) or 0, tx.scalar(total) or 0)
