"""What calls to the escrow bring along, out of the mirror's rows and the awards'."""

from sqlalchemy import select

from everlease.db.engine import Tx
from everlease.db.models.jobs import AwardRow, JobRow
from everlease.db.models.mirror import EscrowRow, LeaseRow
from everlease.domain.terms import Bid, LeaseParams, Order, lease_params


def order_of(row: EscrowRow) -> Order:
    """The order as it was signed, whatever was extended since."""
    return Order(
        tenant=row.tenant,
        watcher=row.watcher,
        job_spec=row.job_spec,
        max_rate_per_hour=row.order_max_rate,
        deposit=row.deposit,
        min_collateral=row.min_collateral,
        max_silence=row.max_silence,
        max_epochs=row.order_max_epochs,
        epoch_fee=row.epoch_fee,
        deadline=row.order_deadline,
        nonce=row.nonce,
    )


def params_of(lease: LeaseRow, escrow: EscrowRow) -> LeaseParams:
    """A mirrored lease's params."""
    return LeaseParams(
        job_id=lease.job_id,
        tenant=escrow.tenant,
        watcher=escrow.watcher,
        provider=lease.provider,
        node=lease.node,
        epoch=lease.epoch,
        max_silence=escrow.max_silence,
        rate=lease.rate,
        collateral=lease.collateral,
        slot=lease.slot,
    )


def awarded(tx: Tx, job: JobRow, lease_id: str) -> LeaseParams:
    """The params of a lease that was awarded here, mirrored or not."""
    row = tx.scalars(
        select(AwardRow).where(AwardRow.job_id == job.id, AwardRow.lease_id == lease_id).order_by(AwardRow.fence)
    ).first()
    if row is None:
        raise LookupError(f"lease {lease_id} was never awarded here")
    return lease_params(Order(**job.order), Bid(**row.bid), row.rate_per_hour)
