"""The outbox: an event is written in the transaction that makes it true and leaves for Celery after the commit."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import func, select, text, update

from everlease.db.copy import copy_lines, json_text
from everlease.db.engine import Tx
from everlease.db.models.outbox import OutboxRow

CHANNEL = "everlease_outbox"
NOTICE = "node.notice"
"""The topic of what nodes tell of their containers."""
_WAITS_S = 5.0
"""A relay that is there has sent an event by then."""


@dataclass(frozen=True, slots=True)
class OutboxEvent:
    """One event as Celery gets it: at least once, in no promised order."""

    id: int
    topic: str
    payload: dict[str, Any]


def emit(tx: Tx, topic: str, payload: dict[str, Any]) -> None:
    """Add an event to this transaction; the relay is woken by NOTIFY when it commits."""
    tx.add(OutboxRow(topic=topic, payload=payload))
    tx.execute(text("SELECT pg_notify(:channel, :topic)"), {"channel": CHANNEL, "topic": topic})


def emit_all(tx: Tx, events: Sequence[tuple[str, dict[str, Any]]]) -> None:
    """``emit`` for many (topic, payload) at once, in their order; the relay is woken once per topic."""
    if not events:
        return
    tx.flush()
    lines = (f"{topic}\t{json_text(payload)}\n" for topic, payload in events)
    copy_lines(tx, OutboxRow, ("topic", "payload"), lines)
    topics = sorted({topic for topic, _ in events})
    tx.execute(
        text("SELECT pg_notify(:channel, topic) FROM unnest(CAST(:topics AS text[])) AS topic"),
        {"channel": CHANNEL, "topics": topics},
    )


def claim_unsent(tx: Tx, limit: int = 200) -> list[OutboxEvent]:
    """Lock the oldest unsent events for this transaction; other relays skip them. Call ``mark_sent`` after sending."""
    rows = tx.scalars(
        select(OutboxRow)
        .where(OutboxRow.sent_at.is_(None))
        .order_by(OutboxRow.id)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    return [OutboxEvent(row.id, row.topic, row.payload) for row in rows]


def mark_sent(tx: Tx, ids: Sequence[int]) -> None:
    """Record that the broker took these events."""
    if ids:
        tx.execute(update(OutboxRow).where(OutboxRow.id.in_(ids)).values(sent_at=func.clock_timestamp()))


def waits(tx: Tx, topic: str, job_id: str) -> bool:
    """Whether an event of this topic about the job waits for a relay that is away: no node can keep that up at will."""
    unsent = select(OutboxRow.id).where(
        OutboxRow.sent_at.is_(None),
        OutboxRow.created_at < func.clock_timestamp() - timedelta(seconds=_WAITS_S),
        OutboxRow.topic == topic,
        OutboxRow.payload["job_id"].as_string() == job_id,
    )
    return tx.scalar(unsent.limit(1)) is not None


def purge_sent(tx: Tx, before: datetime) -> int:
    """Delete events that were sent before ``before``; returns how many."""
    rows = tx.execute(text("DELETE FROM outbox WHERE sent_at < :before RETURNING id"), {"before": before}).fetchall()
    return len(rows)
