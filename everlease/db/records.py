"""What a job's providers have shown so far: counted over all of its awards, however many there are."""

from collections.abc import Collection

from sqlalchemy import func, select

from everlease.db.engine import Tx
from everlease.db.models.jobs import AwardRow, CheckpointRow, JobRow
from everlease.db.models.mirror import LeaseRow
from everlease.domain.earning import SERVED_S
from everlease.domain.snapshot import RECOVERED


def proven(tx: Tx, providers: Collection[str]) -> frozenset[str]:
    """Those of these providers whose hosts served a job here, of whatever tenant, to a committed checkpoint."""
    found = (
        select(AwardRow.provider)
        .join(CheckpointRow, (CheckpointRow.job_id == AwardRow.job_id) & (CheckpointRow.fence == AwardRow.fence))
        .where(AwardRow.provider.in_(set(providers)), AwardRow.started_at.is_not(None))
        .distinct()
    )
    return frozenset(tx.scalars(found))


def unserved(tx: Tx, job: JobRow) -> int:
    """Leases of the job on chain since its tenant last let it go on under which less than ``SERVED_S`` was served."""
    wanted = select(func.count(func.distinct(LeaseRow.lease_id))).join(AwardRow, AwardRow.lease_id == LeaseRow.lease_id)
    return (
        tx.scalar(
            wanted.where(
                LeaseRow.job_id == job.id,
                AwardRow.job_id == job.id,
                AwardRow.fence > job.resumed_fence,
                AwardRow.earned_s < SERVED_S,
            )
        )
        or 0
    )


def recovered_from(tx: Tx, job: JobRow) -> int:
    """Providers that the job was recovered from since its tenant last let it go on; those not proven count as one."""
    left = set(
        tx.scalars(
            select(AwardRow.provider)
            .where(
                AwardRow.job_id == job.id,
                AwardRow.fence > job.resumed_fence,
                AwardRow.started_at.is_not(None),
                AwardRow.outcome.in_(RECOVERED),
            )
            .distinct()
        )
    )
    known = proven(tx, left) if left else frozenset()
    return len(known) + bool(left - known)
