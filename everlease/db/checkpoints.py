"""Committed checkpoints, read. They are added by ``everlease.db.jobs.advance_head`` alone."""

from collections.abc import Sequence

from sqlalchemy import func, select
from sqlalchemy.orm import defer

from everlease.db.engine import Tx
from everlease.db.models.jobs import AwardRow, CheckpointRow, JobRow


def by_manifest(tx: Tx, manifest: str) -> CheckpointRow | None:
    """The checkpoint with this manifest, of whatever job."""
    return tx.scalar(select(CheckpointRow).where(CheckpointRow.manifest == manifest))


def numbered(tx: Tx, job_id: str, seq: int) -> CheckpointRow | None:
    """The job's checkpoint of this number."""
    return tx.get(CheckpointRow, (job_id, seq), populate_existing=True)


def restorable(tx: Tx, job_id: str, seq: int) -> CheckpointRow | None:
    """The job's checkpoint of this number, if the program can go on from it: it is kept, sound, and not of outputs."""
    row = numbered(tx, job_id, seq)
    return row if row is not None and row.condemned_at is None and not row.damaged and not row.final else None


def newest_program(tx: Tx, job_id: str) -> CheckpointRow | None:
    """The newest sound ancestor of the head, itself included, that is there and from which the program can go on."""
    return tx.scalar(
        select(CheckpointRow)
        .where(
            CheckpointRow.job_id == job_id,
            CheckpointRow.condemned_at.is_(None),
            CheckpointRow.damaged == "",
            CheckpointRow.superseded.is_(False),
            CheckpointRow.final.is_(False),
        )
        .order_by(CheckpointRow.seq.desc())
        .limit(1)
    )


def authors(tx: Tx, job_id: str) -> dict[int, str]:
    """The provider of each of the job's awards, by fence."""
    rows = tx.execute(select(AwardRow.fence, AwardRow.provider).where(AwardRow.job_id == job_id))
    return {row.fence: row.provider for row in rows}


def newest_ages(tx: Tx, job: JobRow, fence: int, most: int) -> Sequence[float]:
    """How old (seconds) are those of the job's ``most`` newest commits under this fence that are not final."""
    age = func.extract("epoch", func.clock_timestamp() - CheckpointRow.committed_at)
    rows = tx.scalars(
        select(age).where(
            CheckpointRow.job_id == job.id,
            CheckpointRow.seq > job.last_seq - most,
            CheckpointRow.fence == fence,
            CheckpointRow.final.is_(False),
        )
    )
    return [float(seconds) for seconds in rows]


def finals(tx: Tx, job_id: str, fence: int) -> int:
    """How many final checkpoints were committed under this fence, whatever became of them."""
    wanted = select(func.count()).where(
        CheckpointRow.job_id == job_id, CheckpointRow.fence == fence, CheckpointRow.final
    )
    return tx.scalar(wanted) or 0


def page(tx: Tx, job_id: str, before: int | None, limit: int, *, kept: bool = False) -> Sequence[CheckpointRow]:
    """A job's checkpoints below seq ``before``, newest first; without block lists, which are long. ``kept``: those that
    are there alone.
    """
    wanted = select(CheckpointRow).where(CheckpointRow.job_id == job_id).options(defer(CheckpointRow.block_cids))
    if kept:
        wanted = wanted.where(CheckpointRow.condemned_at.is_(None))
    if before is not None:
        wanted = wanted.where(CheckpointRow.seq < before)
    return tx.scalars(wanted.order_by(CheckpointRow.seq.desc()).limit(limit)).all()
