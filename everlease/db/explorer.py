"""Reads of the mirror for people, a page at a time: newest first, after a key, never by offset."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, select

from everlease.db import totals
from everlease.db.engine import Tx
from everlease.db.models.base import Base
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
from everlease.db.walks import MAX_PAGE, After, Column, Page, Row, Walk, page, walking
from everlease.domain.lease import LeaseState

__all__ = ["MAX_PAGE", "After", "EventFilter", "Page", "Row", "walking"]

_STATES = tuple(state.value for state in LeaseState if state is not LeaseState.NONE)


@dataclass(frozen=True, slots=True)
class EventFilter:
    """Only events of this name, and of one job, or one lease, or naming one address; None means any."""

    job_id: str | None = None
    lease_id: str | None = None
    name: str | None = None
    party: str | None = None


def leases(tx: Tx, *, state: str | None, provider: str | None, after: After, limit: int) -> Page:
    """Leases by start, newest first."""
    where: dict[Column, Any] = {} if provider is None else {LeaseRow.provider: provider}
    walk = Walk(where, (LeaseRow.state, _STATES)) if state is None else Walk(where | {LeaseRow.state: state})
    return page(tx, LeaseRow, (LeaseRow.started_at, LeaseRow.lease_id), [walk], after=after, limit=limit)


def leases_of_job(tx: Tx, job_id: str, *, after: After, limit: int) -> Page:
    """A job's leases by epoch, newest first."""
    return page(tx, LeaseRow, (LeaseRow.epoch,), [Walk({LeaseRow.job_id: job_id})], after=after, limit=limit)


def events(tx: Tx, only: EventFilter, names: Sequence[str], *, after: After, limit: int) -> Page:
    """Raw events, newest first. ``names`` are those that an event can have."""
    key = (EventRow.block_number, EventRow.log_index)
    bound: list[dict[Column, Any]] = [{}]
    if only.job_id is not None:
        bound = [{EventRow.job_id: only.job_id}]
    elif only.lease_id is not None:
        bound = [{EventRow.lease_id: only.lease_id}]
    elif only.party is not None:
        bound = [{party: only.party} for party in (EventRow.party_1, EventRow.party_2, EventRow.party_3)]
    if only.name is not None:
        walks = [Walk(where | {EventRow.name: only.name}) for where in bound]
    else:
        walks = [Walk(where, (EventRow.name, names) if where else None) for where in bound]
    return page(tx, EventRow, key, walks, after=after, limit=limit)


def providers(tx: Tx, *, after: After, limit: int) -> Page:
    """Providers by stake, largest first."""
    return page(tx, ProviderRow, (ProviderRow.staked, ProviderRow.provider), [Walk()], after=after, limit=limit)


def slashes(tx: Tx, *, after: After, limit: int) -> Page:
    """Slashes, newest first."""
    return page(tx, SlashRow, (SlashRow.at, SlashRow.lease_id), [Walk()], after=after, limit=limit)


def job(tx: Tx, job_id: str) -> Row | None:
    """A job's escrow with its newest leases by epoch (``leases_of_job`` has all), or None."""
    found = _one(tx, select(EscrowRow.__table__).where(EscrowRow.job_id == job_id))
    if found is None:
        return None
    newest = leases_of_job(tx, job_id, after=None, limit=MAX_PAGE)
    return found | {"leases": newest.items[::-1]}


def lease(tx: Tx, lease_id: str) -> Row | None:
    """A lease, or None."""
    return _one(tx, select(LeaseRow.__table__).where(LeaseRow.lease_id == lease_id))


def address(tx: Tx, account: str, *, limit: int = 50) -> Row:
    """All that is known of an address: its money, its stake, whose node it is, its nodes, jobs and newest payments."""

    def newest(kind: type[Base], owner: Column, key: Column) -> list[Row]:
        return page(tx, kind, (key,), [Walk({owner: account})], after=None, limit=limit).items

    return {
        "address": account,
        "claimable": _one(tx, select(ClaimableRow.__table__).where(ClaimableRow.account == account)),
        "provider": _one(tx, select(ProviderRow.__table__).where(ProviderRow.provider == account)),
        "node": _one(tx, select(NodeAuthRow.__table__).where(NodeAuthRow.node == account)),
        "nodes": newest(NodeAuthRow, NodeAuthRow.provider, NodeAuthRow.node),
        "jobs": newest(EscrowRow, EscrowRow.tenant, EscrowRow.funded_at),
        "payments": newest(PaymentRow, PaymentRow.account, PaymentRow.id),
    }


def stats(tx: Tx) -> Row:
    """Totals over the whole mirror, base units and counts."""
    found = totals.read(tx)
    by_state = {state: found.pop(totals.LEASES + state.lower()) for state in _STATES}
    return {"leases": by_state, **found}


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
