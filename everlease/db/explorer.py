"""Reads of the mirror for people, a page at a time: newest first, after a key, never by offset."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, func, select, tuple_

from everlease.db.engine import Tx
from everlease.db.models.mirror import (
    ClaimableRow,
    CursorRow,
    EscrowRow,
    EventRow,
    LeaseRow,
    NodeAuthRow,
    PaymentRow,
    ProviderRow,
    SlashRow,
)
from everlease.domain.lease import LeaseState

MAX_PAGE = 200
Row = dict[str, Any]
After = tuple[Any, ...] | None
"""Key of the last row of the page before."""


@dataclass(frozen=True, slots=True)
class Page:
    """Rows, and the key to ask for the next page with (None at the end)."""

    items: list[Row]
    next: After


@dataclass(frozen=True, slots=True)
class EventFilter:
    """Only events of this job, lease, name or naming this address; None means any."""

    job_id: str | None = None
    lease_id: str | None = None
    name: str | None = None
    party: str | None = None


def leases(tx: Tx, *, state: str | None, provider: str | None, job_id: str | None, after: After, limit: int) -> Page:
    """Leases, newest first."""
    wanted = select(LeaseRow.__table__)
    for column, value in ((LeaseRow.state, state), (LeaseRow.provider, provider), (LeaseRow.job_id, job_id)):
        if value is not None:
            wanted = wanted.where(column == value)
    return _page(tx, wanted, (LeaseRow.started_at, LeaseRow.lease_id), after, limit)


def events(tx: Tx, only: EventFilter, *, after: After, limit: int) -> Page:
    """Raw events, newest first."""
    wanted = select(EventRow.__table__)
    named = ((EventRow.job_id, only.job_id), (EventRow.lease_id, only.lease_id), (EventRow.name, only.name))
    for column, value in named:
        if value is not None:
            wanted = wanted.where(column == value)
    if only.party is not None:
        wanted = wanted.where(EventRow.parties.contains([only.party]))
    return _page(tx, wanted, (EventRow.block_number, EventRow.log_index), after, limit)


def providers(tx: Tx, *, after: After, limit: int) -> Page:
    """Providers by stake, largest first."""
    return _page(tx, select(ProviderRow.__table__), (ProviderRow.staked, ProviderRow.provider), after, limit)


def slashes(tx: Tx, *, after: After, limit: int) -> Page:
    """Slashes, newest first."""
    return _page(tx, select(SlashRow.__table__), (SlashRow.at, SlashRow.lease_id), after, limit)


def job(tx: Tx, job_id: str) -> Row | None:
    """A job's escrow with all its leases by epoch, or None."""
    found = _one(tx, select(EscrowRow.__table__).where(EscrowRow.job_id == job_id))
    if found is None:
        return None
    rows = tx.execute(select(LeaseRow.__table__).where(LeaseRow.job_id == job_id).order_by(LeaseRow.epoch).limit(1000))
    return found | {"leases": [dict(row) for row in rows.mappings()]}


def lease(tx: Tx, lease_id: str) -> Row | None:
    """A lease, or None."""
    return _one(tx, select(LeaseRow.__table__).where(LeaseRow.lease_id == lease_id))


def address(tx: Tx, account: str, *, limit: int = 50) -> Row:
    """All that is known of an address: its money, its stake, whose node it is, its nodes, jobs and newest payments."""

    def some(statement: Select[Any]) -> list[Row]:
        return [dict(row) for row in tx.execute(statement.limit(limit)).mappings()]

    nodes = select(NodeAuthRow.__table__).where(NodeAuthRow.provider == account).order_by(NodeAuthRow.node)
    jobs = select(EscrowRow.__table__).where(EscrowRow.tenant == account).order_by(EscrowRow.funded_at.desc())
    payments = select(PaymentRow.__table__).where(PaymentRow.account == account).order_by(PaymentRow.id.desc())
    return {
        "address": account,
        "claimable": _one(tx, select(ClaimableRow.__table__).where(ClaimableRow.account == account)),
        "provider": _one(tx, select(ProviderRow.__table__).where(ProviderRow.provider == account)),
        "node": _one(tx, select(NodeAuthRow.__table__).where(NodeAuthRow.node == account)),
        "nodes": some(nodes),
        "jobs": some(jobs),
        "payments": some(payments),
    }


def stats(tx: Tx) -> Row:
    """Totals over the whole mirror, base units and counts."""

    def total(column: Any) -> int:
        return int(tx.scalar(select(func.coalesce(func.sum(column), 0))) or 0)

    counted = tx.execute(select(LeaseRow.state, func.count()).group_by(LeaseRow.state))
    by_state = {state: count for state, count in counted}  # noqa: C416 - mypy needs the pairs
    return {
        "jobs": tx.scalar(select(func.count()).select_from(EscrowRow)) or 0,
        "leases": {state.value: by_state.get(state.value, 0) for state in LeaseState if state is not LeaseState.NONE},
        "providers": tx.scalar(select(func.count()).select_from(ProviderRow)) or 0,
        "nodes": tx.scalar(select(func.count()).where(NodeAuthRow.active)) or 0,
        "staked": total(ProviderRow.staked),
        "locked": total(ProviderRow.locked),
        "slashed": total(ProviderRow.slashed),
        "escrowed": total(EscrowRow.balance),
        "reserved": total(EscrowRow.reserved),
        "deposited": total(EscrowRow.deposited),
        "paid": total(EscrowRow.paid),
        "claimable": total(ClaimableRow.amount),
        "withdrawn": total(ClaimableRow.withdrawn),
    }


def status(tx: Tx) -> Row | None:
    """Where the mirror stands, or None before its first step."""
    found = _one(tx, select(CursorRow.__table__))
    if found is None:
        return None
    found.pop("id")
    return found | {"lag": max(0, found["head_number"] - found["block_number"])}


def _one(tx: Tx, statement: Select[Any]) -> Row | None:
    found = tx.execute(statement).mappings().one_or_none()
    return None if found is None else dict(found)


def _page(tx: Tx, wanted: Select[Any], key: tuple[Any, Any], after: After, limit: int) -> Page:
    """Rows below ``after`` by ``key``, descending; one more than asked is read to know whether there is a next page."""
    limit = max(1, min(limit, MAX_PAGE))
    if after is not None:
        wanted = wanted.where(tuple_(*key) < tuple_(*after))
    order = [column.desc() for column in key]
    found = [dict(row) for row in tx.execute(wanted.order_by(*order).limit(limit + 1)).mappings()]
    items = found[:limit]
    more = len(found) > limit
    return Page(items, tuple(items[-1][column.key] for column in key) if more else None)
