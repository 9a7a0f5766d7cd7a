"""A job's output and history, read in pages by id. ``everlease_job`` (payload: job id) wakes those that follow."""

from collections.abc import Sequence

from sqlalchemy import delete, func, select, text
from sqlalchemy.dialects.postgresql import insert

from everlease.db.engine import Tx
from everlease.db.jobs import CHANNEL
from everlease.db.models.jobs import JobEventRow, JobLogRow

_LAST = 2**63 - 1


def append(tx: Tx, job_id: str, fence: int, stream: str, offset: int, piece: str) -> int | None:
    """Add a piece of output; its row's id, or None for a repeat.

    A node that was killed before it noted our answer sends again, and cuts its pieces anew: only what is new counts.
    """
    of_stream = (JobLogRow.job_id == job_id, JobLogRow.fence == fence, JobLogRow.stream == stream)
    known = tx.scalar(select(JobLogRow.until).where(*of_stream).order_by(JobLogRow.offset.desc()).limit(1)) or 0
    new = piece.encode("utf-8", "replace")[max(known - offset, 0) :]
    if not new:
        return None
    offset = max(offset, known)
    until = min(offset + len(new), _LAST)
    shown = new.decode("utf-8", "replace")
    added = tx.execute(
        insert(JobLogRow)
        .values(job_id=job_id, fence=fence, stream=stream, offset=offset, until=until, text=shown)
        .on_conflict_do_nothing(index_elements=["job_id", "fence", "stream", "offset"])
        .returning(JobLogRow.id)
    ).scalar_one_or_none()
    if added is not None:
        tx.execute(text("SELECT pg_notify(:channel, :job)"), {"channel": CHANNEL, "job": job_id})
    return added


def trim(tx: Tx, job_id: str, keep_bytes: int) -> None:
    """Drop the oldest pieces beyond ``keep_bytes`` of text per job."""
    running = func.sum(func.octet_length(JobLogRow.text)).over(order_by=JobLogRow.id.desc())
    sized = select(JobLogRow.id, running.label("total")).where(JobLogRow.job_id == job_id).subquery()
    tx.execute(delete(JobLogRow).where(JobLogRow.id.in_(select(sized.c.id).where(sized.c.total > keep_bytes))))


def page(tx: Tx, job_id: str, after: int, limit: int) -> Sequence[JobLogRow]:
    """Output after row ``after``, oldest first."""
    return tx.scalars(
        select(JobLogRow).where(JobLogRow.job_id == job_id, JobLogRow.id > after).order_by(JobLogRow.id).limit(limit)
    ).all()


def tail_start(tx: Tx, job_id: str, pieces: int) -> int:
    """The id after which only the last ``pieces`` pieces follow; 0 where there are fewer."""
    found = tx.scalar(
        select(JobLogRow.id).where(JobLogRow.job_id == job_id).order_by(JobLogRow.id.desc()).offset(pieces).limit(1)
    )
    return found or 0


def history(tx: Tx, job_id: str, after: int, limit: int) -> Sequence[JobEventRow]:
    """The job's history after row ``after``, oldest first."""
    return tx.scalars(
        select(JobEventRow)
        .where(JobEventRow.job_id == job_id, JobEventRow.id > after)
        .order_by(JobEventRow.id)
        .limit(limit)
    ).all()
