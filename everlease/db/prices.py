"""What settled leases say of prices: noted at the award, filled in once the lease is settled for good, forgotten."""

from typing import Any

from sqlalchemy import cast, delete, func, literal_column, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.types import BigInteger

from everlease.db.engine import Tx
from everlease.db.models.jobs import JobRow, PriceRow
from everlease.db.models.mirror import CursorRow, LeaseRow
from everlease.db.models.nodes import NodeRow
from everlease.domain import jobspec
from everlease.domain.lease import ENDED
from everlease.domain.reserve import MOST_OBSERVATIONS, WINDOW_DAYS, Observation, class_of

_DAY_S = 86_400
_A_SWEEP = 1000
"""Leases that one sweep fills in."""


def note(tx: Tx, job: JobRow, node: str, provider: str, lease_id: str, now: float) -> None:
    """Note an award that a rival's bid priced; the newest of a tenant, provider and day stands for all of them."""
    resources = jobspec.from_dict(job.spec).resources
    values = {
        "price_class": class_of(resources),
        "gpu_model": _gpu_model(tx, node) if resources.gpus else "",
        "day": int(now // _DAY_S),
        "tenant": job.tenant.lower(),
        "provider": provider.lower(),
    }
    lease: dict[str, Any] = {"lease_id": lease_id, "rate": None, "seconds": None}
    tx.execute(
        insert(PriceRow).values(**values, **lease).on_conflict_do_update(index_elements=list(values), set_=lease)
    )


def observed(tx: Tx, price_class: str, gpu_model: str, now: float) -> list[Observation]:
    """Settled leases of a class in the window, those of the most paid seconds; of any GPU model where that is empty."""
    found = (
        select(PriceRow)
        .where(
            PriceRow.price_class == price_class,
            PriceRow.seconds > literal_column("0"),  # as the index has it
            PriceRow.day > int(now // _DAY_S) - WINDOW_DAYS,
        )
        .order_by(PriceRow.seconds.desc(), PriceRow.lease_id.desc())
        .limit(MOST_OBSERVATIONS)
    )
    if gpu_model:
        found = found.where(PriceRow.gpu_model == gpu_model)
    return [
        Observation(row.price_class, row.tenant, row.provider, row.day, row.rate or 0, row.seconds or 0)
        for row in tx.scalars(found.execution_options(populate_existing=True))
    ]


def settle(tx: Tx, now: float) -> int:
    """Fill in leases that ended in a block that is final, forget what is older than the window; returns how many."""
    tx.execute(delete(PriceRow).where(PriceRow.day <= int(now // _DAY_S) - WINDOW_DAYS))
    final = select(func.max(CursorRow.final_number)).scalar_subquery()
    ended = (
        select(LeaseRow.lease_id, LeaseRow.rate, LeaseRow.paid)
        .join(PriceRow, PriceRow.lease_id == LeaseRow.lease_id)
        .where(PriceRow.seconds.is_(None), LeaseRow.state.in_(ENDED), LeaseRow.block <= final)
        .order_by(LeaseRow.lease_id)
        .limit(_A_SWEEP)
        .subquery()
    )
    seconds = cast(func.coalesce(func.div(ended.c.paid * 3600, func.nullif(ended.c.rate, 0)), 0), BigInteger)
    filled = tx.execute(
        update(PriceRow)
        .where(PriceRow.lease_id == ended.c.lease_id, PriceRow.seconds.is_(None))
        .values(rate=ended.c.rate, seconds=seconds)
        .returning(PriceRow.lease_id)
    )
    return len(filled.all())


def _gpu_model(tx: Tx, node: str) -> str:
    row = tx.get(NodeRow, node)
    gpus = row.facts.get("gpus") if row is not None else None
    first = gpus[0] if isinstance(gpus, list) and gpus else None
    return str(first.get("model", ""))[:200] if isinstance(first, dict) else ""
