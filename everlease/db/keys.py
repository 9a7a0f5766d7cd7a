"""Wrapped job keys. Generation 0 is the job's dedup secret; what is stored is useless without the master key."""

from collections.abc import Collection

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert

from everlease.db.engine import Tx
from everlease.db.models.jobs import JobKeyRow


def put_if_absent(tx: Tx, job_id: str, generation: int, wrapped: bytes) -> bytes:
    """Store a wrapped key unless the generation has one; returns the one that is stored."""
    tx.execute(
        insert(JobKeyRow)
        .values(job_id=job_id, generation=generation, wrapped=wrapped)
        .on_conflict_do_nothing(index_elements=["job_id", "generation"])
    )
    stored = tx.scalar(select(JobKeyRow.wrapped).where(JobKeyRow.job_id == job_id, JobKeyRow.generation == generation))
    assert stored is not None
    return stored


def wrapped_keys(tx: Tx, job_id: str, generations: Collection[int]) -> dict[int, bytes]:
    """The wrapped keys of those generations that exist."""
    rows = tx.scalars(select(JobKeyRow).where(JobKeyRow.job_id == job_id, JobKeyRow.generation.in_(generations)))
    return {row.generation: row.wrapped for row in rows}
