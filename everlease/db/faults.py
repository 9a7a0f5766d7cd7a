"""What the marketplace's own rows say of a suspended lease: read for everlease.domain.fault, which judges."""

from dataclasses import dataclass

from sqlalchemy import exists, func, select

from everlease.db import outages, records
from everlease.db.engine import Tx
from everlease.db.models.jobs import AwardRow, CheckpointRow, JobRow
from everlease.db.models.mirror import EscrowRow, LeaseRow
from everlease.db.models.nodes import CommandRow
from everlease.db.terms import params_of
from everlease.domain.fault import FAILED_STEP, Evidence
from everlease.domain.lease import LeaseState
from everlease.domain.terms import LeaseParams, bearable


@dataclass(frozen=True, slots=True)
class Suspension:
    """A suspended lease whose answer window is open; unix seconds by the chain's clock, base units."""

    lease_id: str
    params: LeaseParams
    suspended_at: int
    answer_by: int
    bond: int
    deposit: int


def suspended(tx: Tx, watcher: str, chain_now: int, limit: int = 50) -> list[Suspension]:
    """This watcher's suspended leases that can be answered still; of very many, some by chance each time."""
    found = tx.execute(
        select(LeaseRow, EscrowRow)
        .join(EscrowRow, EscrowRow.job_id == LeaseRow.job_id)
        .where(LeaseRow.state == LeaseState.SUSPENDED, LeaseRow.answer_by > chain_now, EscrowRow.watcher == watcher)
        .order_by(func.random())
        .limit(limit)
    )
    return [
        Suspension(
            lease.lease_id,
            params_of(lease, escrow),
            lease.suspended_at,
            lease.answer_by,
            lease.bond,
            escrow.deposit,
        )
        for lease, escrow in found
    ]


def award_under(tx: Tx, lease_id: str) -> AwardRow | None:
    """The newest award under a lease."""
    return tx.scalar(select(AwardRow).where(AwardRow.lease_id == lease_id).order_by(AwardRow.fence.desc()).limit(1))


def evidence(tx: Tx, award: AwardRow, case: Suspension, chain_now: int) -> Evidence:
    """The evidence on an award that has ended."""
    assert award.ended_at is not None
    ended = award.ended_at.timestamp()
    step = _failed_step(tx, award)
    heard = (award.last_beat_at or award.opened_at or award.ended_at).timestamp()
    until = min(float(case.suspended_at), ended)
    # Whoever answered that a step failed was heard then, whatever its heartbeats said.
    silent = award.outcome == "lost" or (not step and until - heard > case.params.max_silence)
    since = heard if silent else award.awarded_at.timestamp()
    others = _others(tx, award)
    failed = {other.provider for other in others if step and _failed_step(tx, other) == step}
    worked = {other.provider for other in others if other.earned_s > 0 and _committed(tx, other)}
    proven = records.proven(tx, {award.provider} | failed | worked, case.params.tenant)
    return Evidence(
        told=_sent(tx, award, "prepare"),
        start_sent=_sent(tx, award, "start"),
        step=step,
        silent=silent,
        outages=outages.between(tx, since, max(until, ended)),
        worked_at=proven & worked,
        failed_at=proven & failed if award.provider in proven else frozenset(),
        window_used=(chain_now - case.suspended_at) / max(case.answer_by - case.suspended_at, 1),
        affordable=_affordable(tx, award.job_id, case),
    )


def _affordable(tx: Tx, job_id: str, case: Suspension) -> bool:
    """Whether the job's deposit bears one more bond, on top of what its unserved leases cost so far."""
    job = tx.get_one(JobRow, job_id)
    fees = records.unserved(tx, job) * int(job.order["epoch_fee"])
    return bearable(fees + (records.bonds_given(tx, job) + 1) * case.bond, case.deposit)


def _committed(tx: Tx, award: AwardRow) -> bool:
    found = exists().where(CheckpointRow.job_id == award.job_id, CheckpointRow.fence == award.fence)
    return bool(tx.scalar(select(found)))


def _others(tx: Tx, award: AwardRow) -> list[AwardRow]:
    """Awards of the job to other providers from the same inputs."""
    return list(
        tx.scalars(
            select(AwardRow).where(
                AwardRow.job_id == award.job_id,
                AwardRow.provider != award.provider,
                AwardRow.mode == award.mode,
                AwardRow.restore_manifest.is_not_distinct_from(award.restore_manifest),
            )
        )
    )


def _failed_step(tx: Tx, award: AwardRow) -> str:
    """The step in which an award failed before it served: Prepare, Start or none."""
    if award.started_at is not None or award.outcome not in FAILED_STEP:
        return ""
    return "Start" if _sent(tx, award, "start") else "Prepare"


def _sent(tx: Tx, award: AwardRow, kind: str) -> bool:
    """Whether the gateway put this command of the award on its node's socket."""
    found = exists().where(
        CommandRow.job_id == award.job_id,
        CommandRow.node == award.node,
        CommandRow.fence == award.fence,
        CommandRow.kind == kind,
        CommandRow.sent_at.is_not(None),
    )
    return bool(tx.scalar(select(found)))
