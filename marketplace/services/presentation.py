"""Rows as the API shows them."""

from datetime import datetime

from everlease.db import Tx, checkpoints, queries
from everlease.db.models.jobs import AwardRow, CheckpointRow, JobEventRow, JobLogRow, JobRow
from everlease.db.models.mirror import EscrowRow, LeaseRow, ProviderRow
from everlease.db.models.nodes import NodeRow
from everlease.db.queries import JobMoney
from everlease.domain.lease import LeaseState
from everlease.domain.liveness import Liveness, mean_time_between_losses
from everlease.domain.money import affordable_seconds, pay_for
from everlease.wire.http import CheckpointOut, CostOut, EventOut, JobOut, LeaseOut, LimitsOut, LogOut, NodeOut
from everlease.wire.spec import SpecModel
from everlease.wire.terms import OrderModel


def unix(instant: datetime) -> float:
    """Unix seconds."""
    return instant.timestamp()


def maybe_unix(instant: datetime | None) -> float | None:
    """Unix seconds, or None."""
    return None if instant is None else instant.timestamp()


def job_out(tx: Tx, row: JobRow) -> JobOut:
    """A job with its present host and newest checkpoint."""
    award: AwardRow | None = queries.current_award(tx, row.id)
    escrow = queries.escrow_of(tx, row.id)
    newest = next(iter(checkpoints.page(tx, row.id, row.head_seq + 1, 1)), None)
    return JobOut(
        id=row.id,
        name=row.name,
        tenant=row.tenant,
        state=row.state,
        reason=row.reason,
        wish=row.wish,
        created_at=unix(row.created_at),
        ended_at=maybe_unix(row.ended_at),
        epoch=row.epoch,
        fence=row.fence,
        recoveries=row.recoveries,
        exit_code=row.exit_code,
        node=award.node if award else None,
        mode=award.mode if award else None,
        last_checkpoint_seq=row.head_seq,
        last_checkpoint_at=maybe_unix(newest.taken_at if newest else None),
        loss_bound_s=award.loss_bound_s if award else None,
        funded=escrow is not None,
        spec=SpecModel.model_validate(row.spec),
        order=OrderModel.model_validate(row.order),
        order_signature=row.order_signature,
        image_manifest=row.image_manifest,
        image_bytes=row.image_bytes,
        limits=None if escrow is None else _limits(escrow),
    )


def _limits(escrow: EscrowRow) -> LimitsOut:
    return LimitsOut(
        deadline=escrow.deadline,
        leases=escrow.epochs,
        max_leases=escrow.max_epochs,
        max_rate_per_hour=escrow.max_rate_per_hour,
    )


def lease_out(row: LeaseRow) -> LeaseOut:
    """A lease as the chain has it."""
    return LeaseOut(
        lease_id=row.lease_id,
        epoch=row.epoch,
        provider=row.provider,
        node=row.node,
        state=row.state,
        rate_per_hour=row.rate,
        collateral=row.collateral,
        paid=row.paid,
        fee=row.fee,
        slashed=row.slashed,
        reserve=row.reserve,
        earned_s=row.earned,
        seen_at=row.seen_at,
        started_at=row.started_at,
        ends_at=row.ends_at,
        suspended_at=row.suspended_at,
        answer_by=row.answer_by,
        ended_at=row.ended_at,
        tx_hash=row.tx_hash,
    )


def checkpoint_out(row: CheckpointRow, job: JobRow, provider: str | None) -> CheckpointOut:
    """A committed checkpoint of a job; ``provider``: its author's."""
    kept = row.condemned_at is None
    return CheckpointOut(
        seq=row.seq,
        fence=row.fence,
        epoch=row.epoch,
        node=row.node,
        provider=provider,
        head=row.manifest == job.head_manifest,
        superseded=row.superseded,
        kept=kept,
        kept_until=maybe_unix(job.kept_until) if kept else None,
        mode=row.mode,
        manifest=row.manifest,
        predecessor=row.predecessor,
        logical_bytes=row.logical_bytes,
        new_bytes=row.new_bytes,
        pause_s=row.pause_s,
        total_s=row.total_s,
        final=row.final,
        damaged=row.damaged,
        taken_at=unix(row.taken_at),
        committed_at=unix(row.committed_at),
    )


def cost_out(money: JobMoney) -> CostOut:
    """What a job has cost, owes and can still cost. Receipts count up to what their lease may still be paid."""
    escrow = money.escrow
    if escrow is None:
        nothing = dict.fromkeys(("deposited", "balance", "reserved", "paid", "refunded", "owed", "refundable"), 0)
        return CostOut(**nothing, projected_total=0, rate_per_hour=None, served_s=0, runs_for_s=None)
    owed = served = 0
    active = None
    for lease in money.leases:
        receipt = money.receipts.get(lease.lease_id)
        earned = max(lease.earned, receipt.earned if receipt else 0)
        served += earned
        if lease.state in (LeaseState.ACTIVE, LeaseState.SUSPENDED):
            owed += min(max(pay_for(lease.rate, earned) - lease.paid, 0), lease.reserve)
        if lease.state == LeaseState.ACTIVE:
            active = lease
    free = max(escrow.balance - escrow.reserved, 0)
    return CostOut(
        deposited=escrow.deposited,
        balance=escrow.balance,
        reserved=escrow.reserved,
        paid=escrow.paid,
        refunded=escrow.refunded,
        owed=owed,
        refundable=0 if active else free,
        projected_total=escrow.paid + owed + escrow.epochs * escrow.epoch_fee,
        rate_per_hour=active.rate if active else None,
        served_s=served,
        runs_for_s=affordable_seconds(free + active.reserve - owed, active.rate) if active else None,
    )


def event_out(row: JobEventRow) -> EventOut:
    """One line of a job's history."""
    return EventOut(id=row.id, kind=row.kind, data=row.data, at=unix(row.at))


def log_out(row: JobLogRow) -> LogOut:
    """A piece of a job's output."""
    stream = "stderr" if row.stream == "stderr" else "stdout"
    return LogOut(id=row.id, fence=row.fence, stream=stream, offset=row.offset, text=row.text, at=unix(row.at))


def node_out(row: NodeRow, provider: ProviderRow | None) -> NodeOut:
    """A node's public facts and its record."""
    return NodeOut(
        node=row.address,
        provider=row.provider,
        liveness=row.liveness if row.connected or row.liveness != Liveness.ALIVE else Liveness.SUSPECT,
        connected=row.connected,
        draining=row.draining,
        version=row.version,
        facts=row.facts,
        last_seen=maybe_unix(row.last_seen),
        losses=row.losses,
        served_s=row.served_s,
        mtbf_s=mean_time_between_losses(row.served_s, row.losses),
        stake=provider.staked if provider else 0,
        stake_locked=provider.locked if provider else 0,
    )
