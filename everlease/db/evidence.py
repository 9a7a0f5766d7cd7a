"""Everything that was recorded about one job, for reports. Reads only; times are unix seconds."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import inspect, select
from sqlalchemy.orm import InstrumentedAttribute

from everlease.db.engine import Tx
from everlease.db.models.base import Base
from everlease.db.models.jobs import AuctionRow, AwardRow, CheckpointRow, JobEventRow, JobLogRow, JobRow
from everlease.db.models.mirror import LeaseRow, SlashRow
from everlease.db.models.nodes import ZombieRow

Record = dict[str, Any]


def job(tx: Tx, job_id: str) -> Record:
    """The job's row; raises KeyError where there is none."""
    row = tx.get(JobRow, job_id)
    if row is None:
        raise KeyError(job_id)
    return _record(row)


def awards(tx: Tx, job_id: str) -> list[Record]:
    """Every award, by fence."""
    return _all(tx, AwardRow, AwardRow.job_id, job_id, AwardRow.fence)


def auctions(tx: Tx, job_id: str) -> list[Record]:
    """Every auction, in order."""
    return _all(tx, AuctionRow, AuctionRow.job_id, job_id, AuctionRow.id)


def checkpoints(tx: Tx, job_id: str) -> list[Record]:
    """Every committed checkpoint, by number."""
    return _all(tx, CheckpointRow, CheckpointRow.job_id, job_id, CheckpointRow.seq)


def history(tx: Tx, job_id: str) -> list[Record]:
    """Every event of the job, in order."""
    return _all(tx, JobEventRow, JobEventRow.job_id, job_id, JobEventRow.id)


def output(tx: Tx, job_id: str) -> list[Record]:
    """Every kept piece of output, in order."""
    return _all(tx, JobLogRow, JobLogRow.job_id, job_id, JobLogRow.id)


def refusals(tx: Tx, job_id: str) -> list[Record]:
    """What stale hosts tried, by kind."""
    return _all(tx, ZombieRow, ZombieRow.job_id, job_id, ZombieRow.id)


def leases(tx: Tx, job_id: str) -> list[Record]:
    """The job's leases as the indexer mirrors them, by epoch."""
    return _all(tx, LeaseRow, LeaseRow.job_id, job_id, LeaseRow.epoch)


def slashes(tx: Tx, job_id: str) -> list[Record]:
    """The job's slashes."""
    return _all(tx, SlashRow, SlashRow.job_id, job_id, SlashRow.block)


def _all(
    tx: Tx, model: type[Base], column: InstrumentedAttribute[str], job_id: str, order: InstrumentedAttribute[int]
) -> list[Record]:
    rows: Sequence[Base] = tx.scalars(select(model).where(column == job_id).order_by(order)).all()
    return [_record(row) for row in rows]


def _record(row: Base) -> Record:
    names = [attribute.key for attribute in inspect(type(row)).column_attrs]
    return {name: _plain(getattr(row, name)) for name in names}


def _plain(value: Any) -> Any:
    return value.timestamp() if isinstance(value, datetime) else value
