"""The job's row: its state machine, its fence and the head of its checkpoint chain."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import delete, func, select, update

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
    if after in machine.ENDED:
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

    A repeat of the commit that is already the head is accepted and changes nothing.
    """
    moved = tx.execute(
        update(JobRow)
        .where(
            JobRow.id == checkpoint.job_id,
            JobRow.fence == checkpoint.fence,
            JobRow.head_seq == checkpoint.seq - 1,
            JobRow.head_manifest.is_not_distinct_from(checkpoint.predecessor),
        )
        .values(head_seq=checkpoint.seq, head_manifest=checkpoint.manifest)
        .returning(JobRow.id)
    ).one_or_none()
    if moved is not None:
        # A damaged checkpoint that the head was taken back from makes room for the one that replaces it.
        tx.execute(
            delete(CheckpointRow).where(
                CheckpointRow.job_id == checkpoint.job_id,
                CheckpointRow.seq == checkpoint.seq,
                CheckpointRow.damaged != "",
            )
        )
        tx.add(checkpoint)
        awards.count_as_saved(tx, checkpoint.job_id, checkpoint.fence)
        return
    row = get(tx, checkpoint.job_id)
    tx.refresh(row)
    if row.fence == checkpoint.fence and row.head_manifest == checkpoint.manifest:
        return
    raise StaleFence(checkpoint.job_id, checkpoint.fence, row.fence)


def rewind_head(tx: Tx, row: JobRow, damaged_seq: int, reason: str, seq: int, manifest: str) -> None:
    """Take the head of a locked job back to an earlier checkpoint; those after it, head included, count as damaged."""
    tx.execute(
        update(CheckpointRow)
        .where(CheckpointRow.job_id == row.id, CheckpointRow.seq > seq, CheckpointRow.seq <= damaged_seq)
        .values(damaged=reason or "it can't be restored")
    )
    row.head_seq, row.head_manifest = seq, manifest
    record(tx, row.id, "checkpoint.damaged", {"seq": damaged_seq, "reason": reason, "restore_from": seq})


def due(tx: Tx, now: datetime, limit: int = 500) -> Sequence[str]:
    """Jobs whose planner asked to be called by now."""
    return tx.scalars(select(JobRow.id).where(JobRow.due_at <= now).order_by(JobRow.due_at).limit(limit)).all()
