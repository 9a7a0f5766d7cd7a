"""The job's row: its state machine, its fence and the head of its checkpoint chain."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Select, func, select, update

from everlease.db import awards
from everlease.db.engine import Tx
from everlease.db.models.jobs import CheckpointRow, JobEventRow, JobRow
from everlease.db.outbox import emit
from everlease.domain import job as machine
from everlease.domain.job import JobEvent, JobState

CHANNEL = "everlease_job"
"""NOTIFY payload: the id of a job with news (history or output)."""


class UnknownJob(Exception):
    """No job has this id."""

    retryable = False

    def __init__(self, job_id: str) -> None:
        super().__init__(f"there is no job {job_id}")
        self.job_id = job_id


class StaleFence(Exception):
    """Somebody else was awarded the job since; ``fence`` is what the caller held."""

    retryable = False

    def __init__(self, job_id: str, fence: int, current: int) -> None:
        super().__init__(f"fence {fence} of job {job_id} is stale, {current} is current")
        self.job_id = job_id
        self.fence = fence
        self.current = current


@dataclass(frozen=True, slots=True)
class RestorePoint:
    """What a new award starts from: its own fence, and the head that no older fence can move any more."""

    fence: int
    seq: int
    manifest: str | None


def get(tx: Tx, job_id: str) -> JobRow:
    """The job's row, unlocked; raises UnknownJob."""
    row = tx.get(JobRow, job_id)
    if row is None:
        raise UnknownJob(job_id)
    return row


def lock(tx: Tx, job_id: str) -> JobRow:
    """The job's row, locked until the transaction ends: every decision about a job is made under this lock."""
    row = tx.scalar(
        select(JobRow).where(JobRow.id == job_id).with_for_update().execution_options(populate_existing=True)
    )
    if row is None:
        raise UnknownJob(job_id)
    return row


def record(tx: Tx, job_id: str, kind: str, data: dict[str, Any] | None = None) -> None:
    """Add to the job's history (people, SSE and the report read it)."""
    tx.add(JobEventRow(job_id=job_id, kind=kind, data=data or {}))
    emit(tx, "job.history", {"job_id": job_id, "kind": kind})
    tx.execute(select(func.pg_notify(CHANNEL, job_id)))


def record_news(tx: Tx, job_id: str, kind: str, data: dict[str, Any], quiet_s: float) -> None:
    """``record``, unless the history has an event of this kind for this job that is younger than ``quiet_s``."""
    newest = select(JobEventRow.id).where(
        JobEventRow.job_id == job_id,
        JobEventRow.kind == kind,
        JobEventRow.at > func.clock_timestamp() - timedelta(seconds=quiet_s),
    )
    if tx.scalar(newest.limit(1)) is None:
        record(tx, job_id, kind, data)


def apply_event(tx: Tx, row: JobRow, event: JobEvent, reason: str = "", **data: Any) -> JobState:
    """Move a locked job through its table; an illegal move raises IllegalJobEvent and changes nothing."""
    before = JobState(row.state)
    after = machine.next_state(before, event)
    row.state = after.value
    row.reason = reason
    if after not in machine.ENDED:
        row.ended_at = None
    else:
        row.ended_at = tx.scalar(select(func.clock_timestamp()))
        row.due_at = None
    record(tx, row.id, f"job.{event}", {"from": before.value, "to": after.value, "reason": reason, **data})
    return after


def raise_fence(tx: Tx, job_id: str) -> RestorePoint:
    """Shut every older host out and read the restore point, in one statement on the job's row."""
    found = tx.execute(
        update(JobRow)
        .where(JobRow.id == job_id)
        .values(fence=JobRow.fence + 1)
        .returning(JobRow.fence, JobRow.head_seq, JobRow.head_manifest)
    ).one_or_none()
    if found is None:
        raise UnknownJob(job_id)
    return RestorePoint(found.fence, found.head_seq, found.head_manifest)


def advance_head(tx: Tx, checkpoint: CheckpointRow) -> None:
    """Commit a checkpoint: one update where job, fence and predecessor match; raises StaleFence and adds nothing.

    It gets the job's next number. A repeat of the commit that is already the head is accepted and changes nothing.
    """
    moved = tx.execute(
        update(JobRow)
        .where(
            JobRow.id == checkpoint.job_id,
            JobRow.fence == checkpoint.fence,
            JobRow.head_manifest.is_not_distinct_from(checkpoint.predecessor),
        )
        .values(head_seq=JobRow.last_seq + 1, last_seq=JobRow.last_seq + 1, head_manifest=checkpoint.manifest)
        .returning(JobRow.head_seq)
    ).one_or_none()
    if moved is not None:
        checkpoint.seq = moved.head_seq
        tx.add(checkpoint)
        awards.count_as_saved(tx, checkpoint.job_id, checkpoint.fence)
        return
    row = get(tx, checkpoint.job_id)
    tx.refresh(row)
    if row.fence == checkpoint.fence and row.head_manifest == checkpoint.manifest:
        return
    raise StaleFence(checkpoint.job_id, checkpoint.fence, row.fence)


def rewind_head(tx: Tx, row: JobRow, reason: str, seq: int, manifest: str | None, *, corrupt: bool = False) -> None:
    """Take the head of a locked job back to an earlier checkpoint, or to its beginning (0, None).

    Those after it, head included, are superseded: nothing falls back to them, and the tenant can go on from them all
    the same. ``corrupt``: the marketplace found blocks of the head damaged or gone; it alone counts as damaged.
    """
    given_up, after = row.head_seq, update(CheckpointRow).where(CheckpointRow.job_id == row.id)
    tx.execute(after.where(CheckpointRow.seq > seq, CheckpointRow.seq <= given_up).values(superseded=True))
    if corrupt:
        told = reason or "it can't be restored"
        tx.execute(after.where(CheckpointRow.manifest == row.head_manifest).values(damaged=told))
    row.head_seq, row.head_manifest = seq, manifest
    kind = "checkpoint.damaged" if corrupt else "checkpoint.given_up"
    record(tx, row.id, kind, {"seq": given_up, "reason": reason, "restore_from": seq})


def resume_from(tx: Tx, row: JobRow, head: CheckpointRow | None, *, beginning: bool = False) -> None:
    """A locked job begins anew from a checkpoint of its own, or from its ``beginning``, else from the head that it has:
    what was counted before counts no more.

    What is no ancestor of it is superseded: it stays, and can be resumed from in its turn.
    """
    of_job = update(CheckpointRow).where(CheckpointRow.job_id == row.id)
    if beginning:
        tx.execute(of_job.values(superseded=True))
        row.head_seq, row.head_manifest = 0, None
    elif head is not None:
        ancestors = _ancestors(head)
        tx.execute(of_job.values(superseded=CheckpointRow.manifest.not_in(ancestors)))
        row.head_seq, row.head_manifest = head.seq, head.manifest
    row.resumed_fence = row.fence
    row.recoveries = 0
    row.exit_code = row.kept_until = None
    record(tx, row.id, "job.resumed_from", {"seq": row.head_seq})


def _ancestors(head: CheckpointRow) -> Select[tuple[str]]:
    """The manifests from the head back to the first."""
    line = select(CheckpointRow.manifest, CheckpointRow.predecessor).where(CheckpointRow.manifest == head.manifest)
    walk = line.cte("line", recursive=True)
    before = select(CheckpointRow.manifest, CheckpointRow.predecessor).where(
        CheckpointRow.job_id == head.job_id, CheckpointRow.manifest == walk.c.predecessor
    )
    whole = walk.union(before)
    return select(whole.c.manifest)


def due(tx: Tx, now: datetime, limit: int = 500) -> Sequence[str]:
    """Jobs whose planner asked to be called by now."""
    return tx.scalars(select(JobRow.id).where(JobRow.due_at <= now).order_by(JobRow.due_at).limit(limit)).all()
