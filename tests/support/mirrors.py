"""Comparing mirrors: everything derived, as plain values."""

from typing import Any

from sqlalchemy import select

from everlease.db import Database
from everlease.db.models import mirror as rows

DERIVED = (
    rows.LeaseRow,
    rows.EscrowRow,
    rows.ProviderRow,
    rows.NodeAuthRow,
    rows.ClaimableRow,
    rows.SlashRow,
    rows.PaymentRow,
    rows.EventRow,
)


def dump(database: Database) -> dict[str, list[tuple[Any, ...]]]:
    """Every derived row and event of a mirror, in the order of their keys."""
    with database.transaction() as tx:
        return {
            kind.__tablename__: [
                tuple(row) for row in tx.execute(select(kind.__table__).order_by(*kind.__table__.primary_key))
            ]
            for kind in DERIVED
        }


def outbox_balance(database: Database) -> dict[str, int]:
    """Per event (by block hash and log index): times announced less times taken back."""
    from everlease.db.models.outbox import OutboxRow

    found: dict[str, int] = {}
    with database.transaction() as tx:
        for topic, payload in tx.execute(select(OutboxRow.topic, OutboxRow.payload)):
            if topic.startswith("chain."):
                key = f"{payload['block_hash']}/{payload['log_index']}"
                found[key] = found.get(key, 0) + (-1 if topic == "chain.reverted" else 1)
    return found
