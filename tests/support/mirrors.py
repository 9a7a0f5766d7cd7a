"""Comparing mirrors: everything derived, as plain values."""

from collections import Counter
from typing import Any

from sqlalchemy import select

from everlease.db import Database, totals
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


Dump = dict[str, list[tuple[Any, ...]]]


def columns(kind: type[rows.Base]) -> list[str]:
    """Names of a table's columns, less those that PostgreSQL computes."""
    return [column.name for column in kind.__table__.columns if column.computed is None]


def dump(database: Database) -> Dump:
    """Every derived row and event of a mirror, in the order of their keys, and its totals."""
    with database.transaction() as tx:
        found = {
            kind.__tablename__: [
                tuple(row)
                for row in tx.execute(
                    select(*(kind.__table__.c[name] for name in columns(kind))).order_by(*kind.__table__.primary_key)
                )
            ]
            for kind in DERIVED
        }
        return found | {"totals": sorted(totals.read(tx).items())}


def count(dumped: Dump) -> list[tuple[str, int]]:
    """The totals of a dump's rows, counted one by one."""
    tables = {
        kind.__tablename__: [dict(zip(columns(kind), row, strict=True)) for row in dumped[kind.__tablename__]]
        for kind in DERIVED
    }
    leases, escrows, providers = tables["lease"], tables["escrow"], tables["provider"]
    states = Counter(row["state"] for row in leases)
    found = {
        "jobs": len(escrows),
        "leases_active": states["ACTIVE"],
        "leases_closed": states["CLOSED"],
        "leases_suspended": states["SUSPENDED"],
        "leases_cleared": states["CLEARED"],
        "leases_failed": states["FAILED"],
        "providers": len(providers),
        "nodes": sum(row["active"] for row in tables["node_auth"]),
        **{name: sum(row[name] for row in providers) for name in ("staked", "locked", "slashed")},
        "escrowed": sum(row["balance"] for row in escrows),
        **{name: sum(row[name] for row in escrows) for name in ("reserved", "deposited", "paid")},
        "claimable": sum(row["amount"] for row in tables["claimable"]),
        "withdrawn": sum(row["withdrawn"] for row in tables["claimable"]),
    }
    return sorted(found.items())


def told(database: Database) -> dict[str | None, int]:
    """By job: how many events the outbox said came, less those that it said went; without jobs that come to none."""
    from everlease.db.models.outbox import OutboxRow

    found: Counter[str | None] = Counter()
    with database.transaction() as tx:
        for topic, payload in tx.execute(select(OutboxRow.topic, OutboxRow.payload)):
            if topic in ("chain.changed", "chain.reverted"):
                found[payload["job_id"]] += payload["events"] if topic == "chain.changed" else -payload["events"]
    return {job: events for job, events in found.items() if events}


def held(database: Database) -> dict[str | None, int]:
    """By job: how many events the mirror holds."""
    with database.transaction() as tx:
        return dict(Counter(tx.scalars(select(rows.EventRow.job_id))))
