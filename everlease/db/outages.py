"""Outages: noted by whoever sees them in the marketplace and recovery, read where it is decided whose fault a failure
was. Unix seconds by the database's clock.
"""

from datetime import UTC, datetime

from sqlalchemy import delete, func, select

from everlease.db.engine import Tx
from everlease.db.models.mirror import CursorRow
from everlease.db.models.outages import LookRow, OutageRow

_SAME_S = 30.0
"""Two looks at an outage that are not further apart are looks at one."""
_WRITE_EVERY_S = 1.0


def note(tx: Tx, part: str, began: float, until: float) -> None:
    """A part was down in this time; an outage that goes on is the same row."""
    row = tx.scalar(select(OutageRow).where(OutageRow.part == part).order_by(OutageRow.seen_at.desc()).limit(1))
    if row is None or row.seen_at.timestamp() < began - _SAME_S:
        tx.add(OutageRow(part=part, began_at=_instant(began), seen_at=_instant(until)))
    elif until - row.seen_at.timestamp() >= _WRITE_EVERY_S:
        row.seen_at = _instant(until)


def clock(tx: Tx) -> float:
    """Now."""
    return float(tx.scalar(select(func.extract("epoch", func.clock_timestamp()))) or 0)


def look(tx: Tx, now: float) -> float | None:
    """A monitor looks at ``now``; returns when any of them last did, a second too early at most."""
    row = tx.get(LookRow, 1)
    if row is None:
        tx.add(LookRow(id=1, at=_instant(now)))
        return None
    before = row.at.timestamp()
    if now - before >= _WRITE_EVERY_S:
        row.at = _instant(now)
    return before


def forget(tx: Tx, before: float) -> None:
    """Delete what ended before this time: no verdict that is still to come looks at it."""
    tx.execute(delete(OutageRow).where(OutageRow.seen_at < _instant(before)))


def between(tx: Tx, since: float, until: float) -> frozenset[str]:
    """The parts that were down at any time of this span."""
    found = select(OutageRow.part).where(OutageRow.seen_at >= _instant(since), OutageRow.began_at <= _instant(until))
    return frozenset(tx.scalars(found))


def mirror_age(tx: Tx, now: float) -> float:
    """Seconds since a block was last mirrored: the chain stands still, no endpoint answers, or the indexer is away."""
    at = tx.scalar(select(CursorRow.updated_at))
    return 0.0 if at is None else now - at.timestamp()


def _instant(at: float) -> datetime:
    return datetime.fromtimestamp(at, UTC)
