"""Which blocks the store must keep: read by the marketplace before it collects garbage."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

from sqlalchemy import func, select

from everlease.db.engine import Database, Tx
from everlease.db.locks import try_lock
from everlease.db.models.jobs import CheckpointRow, JobRow
from everlease.db.models.mirror import EscrowRow

_LOCK = "everlease.gc"
_AT_ONCE = 5000


@contextmanager
def hold_turn(database: Database) -> Iterator[bool]:
    """Whether this process alone collects, until the block ends: a session's lock, which ends with the process.

    Raises DatabaseUnavailable.
    """
    with try_lock(database, _LOCK) as held:
        yield held is not None


def checkpoint_blocks(tx: Tx) -> Iterator[str]:
    """Manifests and blocks of every checkpoint that is not condemned, one by one and some more than once."""
    kept = CheckpointRow.condemned_at.is_(None)
    for column in (CheckpointRow.manifest, func.jsonb_array_elements_text(CheckpointRow.block_cids)):
        yield from tx.scalars(select(column).where(kept).execution_options(yield_per=_AT_ONCE))


def images(tx: Tx, ended_after: datetime) -> list[str]:
    """Image lists of jobs whose escrow was funded, and that go on or ended after ``ended_after``."""
    wanted = (
        select(JobRow.image_manifest)
        .join(EscrowRow, EscrowRow.job_id == JobRow.id)
        .where(JobRow.image_manifest.is_not(None), JobRow.ended_at.is_(None) | (JobRow.ended_at >= ended_after))
        .distinct()
        .order_by(JobRow.image_manifest)
    )
    return [manifest for manifest in tx.scalars(wanted) if manifest is not None]
