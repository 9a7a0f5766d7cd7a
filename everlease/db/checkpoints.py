"""Committed checkpoints, read. They are added by ``everlease.db.jobs.advance_head`` alone."""

from collections.abc import Sequence

from sqlalchemy import select

from everlease.db.engine import Tx
from everlease.db.models.jobs import CheckpointRow


def by_manifest(tx: Tx, manifest: str) -> CheckpointRow | None:
    """The checkpoint with this manifest, of whatever job."""
    return tx.scalar(select(CheckpointRow).where(CheckpointRow.manifest == manifest))


def page(tx: Tx, job_id: str, before: int | None, limit: int) -> Sequence[CheckpointRow]:
    """A job's checkpoints below seq ``before``, newest first."""
    wanted = select(CheckpointRow).where(CheckpointRow.job_id == job_id)
    if before is not None:
        wanted = wanted.where(CheckpointRow.seq < before)
    return tx.scalars(wanted.order_by(CheckpointRow.seq.desc()).limit(limit)).all()
