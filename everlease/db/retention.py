"""Which blocks the store must keep: read by the marketplace before it collects garbage."""

from datetime import datetime

from sqlalchemy import select, text

from everlease.db.engine import Tx
from everlease.db.models.jobs import CheckpointRow, JobRow

_LOCK = "everlease.gc"


def take_turn(tx: Tx) -> bool:
    """Whether this transaction is the only one collecting; the turn ends with it."""
    return bool(tx.scalar(text("SELECT pg_try_advisory_xact_lock(hashtextextended(:name, 0))"), {"name": _LOCK}))


def checkpoint_blocks(tx: Tx) -> set[str]:
    """Manifests and blocks of every checkpoint that is not condemned."""
    live: set[str] = set()
    wanted = select(CheckpointRow.manifest, CheckpointRow.block_cids).where(CheckpointRow.condemned_at.is_(None))
    for manifest, blocks in tx.execute(wanted.execution_options(yield_per=50)):
        live.add(manifest)
        live.update(blocks)
    return live


def images(tx: Tx, ended_after: datetime) -> set[str]:
    """Image lists of jobs that go on, or ended after ``ended_after``."""
    wanted = select(JobRow.image_manifest).where(
        JobRow.image_manifest.is_not(None), JobRow.ended_at.is_(None) | (JobRow.ended_at >= ended_after)
    )
    return {manifest for manifest in tx.scalars(wanted) if manifest is not None}
