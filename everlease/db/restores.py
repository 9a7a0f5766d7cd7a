"""What the checkpoint that a host is going to restore needs of it, as far as it is known before it is taken."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import defer

from everlease.db import nodes
from everlease.db.engine import Tx
from everlease.db.models.jobs import AwardRow, CheckpointRow, JobRow
from everlease.db.models.nodes import NodeRow
from everlease.domain import compat, jobspec
from everlease.domain.jobspec import CheckpointMode, JobSpec

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
    row = committed(tx, job_id, manifest)
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


@dataclass(frozen=True, slots=True)
class Fallback:
    """A head, and the newest checkpoint of another provider before it that a connected node could restore which can't
    restore the head.

    ``met``: whether one of another provider than the head's could restore the head.
    """

    head: CheckpointRow
    before: CheckpointRow
    met: bool


_LOOKED_AT = 16
"""Checkpoints of other providers that are compared with the hosts, the newest."""


def fallback(tx: Tx, job: JobRow) -> Fallback | None:
    """Where a job could go back to if nobody takes its head, a process checkpoint; None where there is nothing."""
    head = committed(tx, job.id, job.head_manifest)
    if head is None or head.mode != "process":
        return None
    author, earlier = _author(tx, head), of_others(tx, head, _LOOKED_AT)
    if not earlier:
        return None
    spec, hosts = jobspec.from_dict(job.spec), [node for node in nodes.connected(tx) if not node.draining]
    able = [node for node in hosts if _could_restore(head, node, spec)]
    others = [node for node in hosts if node not in able]
    for before in earlier:
        if any(_could_restore(before, node, spec) for node in others):
            return Fallback(head, before, any(node.provider != author for node in able))
    return None


def of_others(tx: Tx, head: CheckpointRow, most: int) -> Sequence[CheckpointRow]:
    """The newest sound checkpoints before the head of other providers than the head's; their block lists, which are
    long, are read only where they are asked for.
    """
    return tx.scalars(
        select(CheckpointRow)
        .join(AwardRow, (AwardRow.job_id == CheckpointRow.job_id) & (AwardRow.fence == CheckpointRow.fence))
        .where(
            CheckpointRow.job_id == head.job_id,
            CheckpointRow.seq < head.seq,
            CheckpointRow.damaged == "",
            CheckpointRow.superseded.is_(False),
            CheckpointRow.condemned_at.is_(None),
            AwardRow.provider != _author(tx, head),
        )
        .order_by(CheckpointRow.seq.desc())
        .limit(most)
        .options(defer(CheckpointRow.block_cids))
    ).all()


def _author(tx: Tx, checkpoint: CheckpointRow) -> str | None:
    return tx.scalar(
        select(AwardRow.provider).where(AwardRow.job_id == checkpoint.job_id, AwardRow.fence == checkpoint.fence)
    )


def worked_s(tx: Tx, before: CheckpointRow, head: CheckpointRow) -> float:
    """At most how many seconds of work lie between two checkpoints: less than by the calendar where the job waited."""
    of_job = AwardRow.job_id == head.job_id
    served = select(func.coalesce(func.sum(AwardRow.earned_s), 0.0)).where(
        of_job, AwardRow.fence > before.fence, AwardRow.fence <= head.fence
    )
    last = select(func.max(CheckpointRow.committed_at)).where(
        CheckpointRow.job_id == head.job_id, CheckpointRow.fence == before.fence, CheckpointRow.seq < head.seq
    )
    there = ((tx.scalar(last) or before.committed_at) - before.committed_at).total_seconds()
    passed = (head.committed_at - before.committed_at).total_seconds()
    return min(passed, (tx.scalar(served) or 0.0) + there)


def _could_restore(checkpoint: CheckpointRow, node: NodeRow, spec: JobSpec) -> bool:
    if checkpoint.mode != "process":
        return True
    try:
        return compat.unproved(node.facts, spec) is None and compat.why_not(checkpoint.requirements, node.facts) is None
    except (KeyError, TypeError, ValueError, AttributeError):
        return False


def committed(tx: Tx, job_id: str, manifest: str | None) -> CheckpointRow | None:
    """The job's checkpoint of this name."""
    if manifest is None:
        return None
    return tx.scalar(select(CheckpointRow).where(CheckpointRow.job_id == job_id, CheckpointRow.manifest == manifest))
