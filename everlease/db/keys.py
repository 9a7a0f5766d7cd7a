"""Wrapped job keys. Generation 0 is the job's dedup secret; what is stored is useless without the master key."""

from collections.abc import Collection

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert

from everlease.db.engine import Tx
from everlease.db.models.jobs import JobKeyRow, MasterKeyRow


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


def fingerprint(tx: Tx, mine: bytes) -> bytes:
    """The fingerprint of the master key that this database belongs to; the first that asks leaves its own."""
    query = select(MasterKeyRow.fingerprint)
    found = tx.scalar(query)
    if found is None:
        tx.execute(insert(MasterKeyRow).values(id=1, fingerprint=mine).on_conflict_do_nothing(index_elements=["id"]))
        found = tx.scalar(query)
    assert found is not None
    return found
