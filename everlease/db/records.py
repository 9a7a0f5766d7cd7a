"""What a job's providers have shown so far: counted over all of its awards, however many there are."""

from collections.abc import Collection

from sqlalchemy import Select, func, select

from everlease.db.engine import Tx
from everlease.db.models.jobs import AwardRow, JobRow
from everlease.db.models.mirror import LeaseRow
from everlease.domain.earning import PROVEN_S, SERVED_S
from everlease.domain.lease import LeaseState
from everlease.domain.snapshot import RECOVERED


def proven(tx: Tx, providers: Collection[str], tenant: str) -> frozenset[str]:
    """Those of these providers that served jobs of other tenants than this one: ``PROVEN_S`` up to commits."""
    if not providers:
        return frozenset()
    return frozenset(tx.scalars(_proven(tenant).where(AwardRow.provider.in_(set(providers)))))


def young(tx: Tx, tenant: str) -> bool:
    """Whether the market has nobody yet who is proven to this tenant."""
    return tx.scalar(_proven(tenant).limit(1)) is None


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


def bonds_given(tx: Tx, job: JobRow) -> int:
    """How many of the job's bonds, since its tenant last let it go on, went to hosts that earned nothing.

    The mirror has no bond of a lease that is over, so they are counted.
    """
    since = select(AwardRow.lease_id).where(AwardRow.job_id == job.id, AwardRow.fence > job.resumed_fence)
    cleared = (LeaseRow.state == LeaseState.CLEARED) & (LeaseRow.earned == 0) & LeaseRow.lease_id.in_(since)
    return tx.scalar(select(func.count()).select_from(LeaseRow).where(LeaseRow.job_id == job.id, cleared)) or 0


def recovered_from(tx: Tx, job: JobRow) -> int:
    """Providers that the job was recovered from since its tenant last let it go on; those not proven count as one.

    Where more have lost it than its order allows, and the market has nobody who is proven, each counts for itself.
    """
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
    known = proven(tx, left, job.tenant)
    if len(left) > int(job.spec["max_recoveries"]) and not known and young(tx, job.tenant):
        return len(left)
    return len(known) + bool(left - known)


def _proven(tenant: str) -> Select[str]:
    return (
        select(AwardRow.provider)
        .join(JobRow, JobRow.id == AwardRow.job_id)
        .where(JobRow.tenant != tenant, JobRow.tenant != AwardRow.provider, AwardRow.started_at.is_not(None))
        .group_by(AwardRow.provider)
        .having(func.sum(AwardRow.saved_s - AwardRow.forfeited_s) >= PROVEN_S)
    )
