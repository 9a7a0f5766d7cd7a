"""What the checkpoint that a host is going to restore needs of it, as far as it is known before it is taken."""

from typing import Any

from sqlalchemy import select

from everlease.db.engine import Tx
from everlease.db.models.jobs import AwardRow, CheckpointRow, JobRow
from everlease.db.models.nodes import NodeRow
from everlease.domain import compat, jobspec
from everlease.domain.jobspec import CheckpointMode

_LIVE_PLANS = frozenset({"migration"})


def requirements(tx: Tx, job: JobRow, plan: str, mode: str) -> dict[str, Any] | None:
    """Of the restore that an auction of this plan and mode leads to; None where no process is restored.

    A migration restores a checkpoint that is still to be taken on the host that runs the job now, not the head: the
    head may be of a host before that, with an older kernel.
    """
    if mode != "process":
        return None
    return of_next(tx, job) if plan in _LIVE_PLANS else of_checkpoint(tx, job.id, job.head_manifest)


def of_checkpoint(tx: Tx, job_id: str, manifest: str | None) -> dict[str, Any] | None:
    """Of a committed checkpoint; None for one of files, or for none at all."""
    row = _committed(tx, job_id, manifest)
    return dict(row.requirements) if row is not None and row.mode == "process" else None


def of_next(tx: Tx, job: JobRow) -> dict[str, Any] | None:
    """Of a checkpoint that the job's present host would take now."""
    award = tx.scalar(
        select(AwardRow).where(AwardRow.job_id == job.id, AwardRow.fence == job.fence, AwardRow.ended_at.is_(None))
    )
    spec = jobspec.from_dict(job.spec)
    if award is None or award.mode != "process" or award.facts.get("undumpable"):
        return None
    if spec.checkpoint.mode in (CheckpointMode.FILES, CheckpointMode.NONE):
        return None
    node = tx.get(NodeRow, award.node)
    try:
        return dict(compat.needs_of(node.facts, spec.resources.gpus)) if node is not None else None
    except (KeyError, TypeError, ValueError, AttributeError):
        return of_checkpoint(tx, job.id, job.head_manifest)


def unfit(tx: Tx, job: JobRow, address: str) -> str:
    """Why a node can't restore the job's head, in one clause; empty where it can."""
    node = tx.get(NodeRow, address)
    needed = of_checkpoint(tx, job.id, job.head_manifest)
    if node is None or needed is None:
        return ""
    return compat.why_not(needed, node.facts) or ""


def _committed(tx: Tx, job_id: str, manifest: str | None) -> CheckpointRow | None:
    if manifest is None:
        return None
    return tx.scalar(select(CheckpointRow).where(CheckpointRow.job_id == job_id, CheckpointRow.manifest == manifest))
