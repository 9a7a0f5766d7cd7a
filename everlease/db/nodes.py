"""Nodes: admission, sightings and liveness. ``last_seen`` is the database's clock at the gateway's write."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, case, func, select, update
from sqlalchemy.dialects.postgresql import insert

from everlease.db.engine import Tx
from everlease.db.models.jobs import AwardRow
from everlease.db.models.mirror import ProviderRow
from everlease.db.models.nodes import NodeRow, ZombieRow
from everlease.db.outbox import emit
from everlease.domain.liveness import DAY_S

_now = func.clock_timestamp
NEWS_EVERY = timedelta(seconds=10)
"""How often one node's facts may wake the jobs that wait for capacity."""


def admit(
    tx: Tx,
    node: str,
    provider: str,
    session: str,
    sealing_key: str,
    version: str,
    facts: dict[str, Any],
    *,
    network: str = "",
    gateway: int | None = None,
) -> NodeRow:
    """Record a new session of a node that proved its key; an older session of the same node is thereby over.

    ``gateway``: the id of the one that holds its socket.
    """
    values = {
        "provider": provider,
        "network": network,
        "session": session,
        "sealing_key": sealing_key,
        "version": version,
        "facts": facts,
        "connected_at": _now(),
        "last_seen": _now(),
        "disconnected_at": None,
        "gateway": gateway,
        "severed_at": None,
        "probe_sent_at": None,
        "liveness": "ALIVE",
        "draining": False,
        "restarting_at": None,
    }
    defaults = {"losses": 0, "served_s": 0.0, "restarts": []}
    tx.execute(
        insert(NodeRow)
        .values(address=node, **values, **defaults)
        .on_conflict_do_update(index_elements=["address"], set_=values)
    )
    emit(tx, "node.connected", {"node": node})
    return tx.get_one(NodeRow, node, populate_existing=True)


def restate(tx: Tx, node: str, session: str, facts: dict[str, Any]) -> bool:
    """The facts of a node are others by now; False where they are the same, or another session took over.

    Jobs that wait for capacity are woken, but not for a disk that has more or less room: every checkpoint does that.
    What comes too soon after the last such news counts a little later.
    """
    row, _ = _locked(tx, node, session, NodeRow.facts != facts)
    if row is None:
        return False
    news = _but_room(row.facts) != _but_room(facts)
    row.facts = facts
    if news:
        _tell(tx, row)
    return True


def can_lock_more(tx: Tx, free: Mapping[str, int]) -> None:
    """These providers' stakes that no lease has locked (base units) are about to be mirrored. Where there is more than
    before, that is news of one of the provider's connected nodes, as if its facts were others: waiting jobs are woken.
    """
    if not free:
        return
    firsts = (
        select(func.min(NodeRow.address), NodeRow.provider, ProviderRow.staked - ProviderRow.locked)
        .outerjoin(ProviderRow, ProviderRow.provider == NodeRow.provider)
        .where(NodeRow.provider.in_(free), NodeRow.connected)
        .group_by(NodeRow.provider, ProviderRow.staked, ProviderRow.locked)
        .order_by(func.min(NodeRow.address))
    )
    for address, provider, before in tx.execute(firsts).all():
        if free[provider] > max(before or 0, 0):
            _tell(tx, tx.get_one(NodeRow, address, with_for_update=True, populate_existing=True))


def _tell(tx: Tx, row: NodeRow) -> None:
    """News of a locked node. What comes too soon after the last counts a little later."""
    now = tx.scalar(select(_now()))
    assert isinstance(now, datetime)
    if row.facts_at is None or row.facts_at <= now:
        row.facts_at = now if row.facts_at is None else max(now, row.facts_at + NEWS_EVERY)
        emit(tx, "node.restated", {"node": row.address})


def _but_room(facts: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in facts.items() if name != "disk_free_bytes"}


def _locked(tx: Tx, node: str, session: str, wanted: ColumnElement[bool]) -> tuple[NodeRow | None, datetime]:
    """A node's row as it is now, if this is its session and it is as ``wanted``; the time once it is locked."""
    row = tx.scalar(
        select(NodeRow)
        .where(NodeRow.address == node, NodeRow.session == session, wanted)
        .with_for_update()
        .execution_options(populate_existing=True)
    )
    now = tx.scalar(select(_now()))
    assert isinstance(now, datetime)
    return row, now


def news_at(tx: Tx, since: datetime) -> datetime | None:
    """The first time after ``since`` at which a connected node came, or its facts count as others; it may be to come.

    The first: a node whose next news is yet to count must not hide another's.
    """
    times = (NodeRow.connected_at, NodeRow.facts_at)
    firsts = select(*(func.min(at).filter(at > since) for at in times)).where(NodeRow.connected)
    return min((at for at in tx.execute(firsts).one() if at is not None), default=None)


def seen(tx: Tx, node: str, session: str) -> bool:
    """Note a heartbeat of the current session; False where the session was replaced."""
    found = tx.execute(
        update(NodeRow)
        .where(NodeRow.address == node, NodeRow.session == session)
        .values(last_seen=_now(), probe_sent_at=None, liveness="ALIVE", severed_at=None)
        .returning(NodeRow.address)
    ).one_or_none()
    return found is not None


def is_current(tx: Tx, node: str, session: str) -> bool:
    """Whether this is the node's session; until the transaction ends no other takes its place."""
    query = select(NodeRow.address).where(NodeRow.address == node, NodeRow.session == session).with_for_update()
    return tx.scalar(query) is not None


def gone(tx: Tx, node: str, session: str) -> None:
    """Note that the socket of this session closed; the monitor is woken."""
    found = tx.execute(
        update(NodeRow)
        .where(NodeRow.address == node, NodeRow.session == session, NodeRow.disconnected_at.is_(None))
        .values(disconnected_at=_now())
        .returning(NodeRow.address)
    ).one_or_none()
    if found is not None:
        emit(tx, "node.disconnected", {"node": node})


_MOST_RESTARTS = 64
"""More than any policy lets count."""


def note_restart(tx: Tx, node: str, session: str) -> bool:
    """Note that the agent of this session says that it is about to be started anew; False for a repeat."""
    row, now = _locked(tx, node, session, NodeRow.restarting_at.is_(None))
    if row is None:
        return False
    lately = [at for at in row.restarts if at > now.timestamp() - DAY_S]
    row.restarting_at, row.restarts = now, [*lately, now.timestamp()][-_MOST_RESTARTS:]
    return True


def get(tx: Tx, node: str) -> NodeRow | None:
    """The node's row, or None."""
    return tx.get(NodeRow, node)


def connected(tx: Tx, only: str | None = None) -> Sequence[NodeRow]:
    """Nodes with an open session, LOST ones left out; or ``only`` this one, if it is one of them."""
    wanted = select(NodeRow).where(NodeRow.connected, NodeRow.liveness != "LOST")
    if only is not None:
        wanted = wanted.where(NodeRow.address == only)
    return tx.scalars(wanted.order_by(NodeRow.address)).all()


def known_networks(tx: Tx, days: float, least: int) -> frozenset[str]:
    """The networks from which nodes were heard in the last ``days`` whose providers have ``least`` staked (base units),
    and something.
    """
    query = (
        select(NodeRow.network)
        .join(ProviderRow, ProviderRow.provider == NodeRow.provider)
        .where(
            ProviderRow.staked >= max(least, 1),
            NodeRow.network != "",
            NodeRow.last_seen > _now() - timedelta(days=days),
        )
    )
    return frozenset(tx.scalars(query.distinct()))


def watched(tx: Tx) -> Sequence[NodeRow]:
    """Nodes that hold an award which has not ended and is not taken leave of: those whose silence matters."""
    return tx.scalars(
        select(NodeRow)
        .where(
            NodeRow.address.in_(
                select(AwardRow.node).where(AwardRow.ended_at.is_(None), ~AwardRow.facts.has_key("goodbye"))
            )
        )
        .order_by(NodeRow.address)
    ).all()


def count_refusal(tx: Tx, job_id: str, node: str, fence: int, kind: str) -> None:
    """Count one refused attempt under a stale fence (heartbeat, checkpoint, receipt, command result, log)."""
    tx.execute(
        insert(ZombieRow)
        .values(job_id=job_id, node=node, fence=fence, kind=kind, refused=1)
        .on_conflict_do_update(
            index_elements=["job_id", "node", "fence", "kind"], set_={"refused": ZombieRow.refused + 1}
        )
    )


def refusals(tx: Tx, job_id: str) -> dict[str, int]:
    """Refused attempts of a job by kind."""
    rows = tx.execute(
        select(ZombieRow.kind, func.sum(ZombieRow.refused)).where(ZombieRow.job_id == job_id).group_by(ZombieRow.kind)
    )
    return {kind: int(count) for kind, count in rows}


def shun(tx: Tx, node: str, seconds: float) -> None:
    """Offer this node no jobs for ``seconds`` from now."""
    until = func.clock_timestamp() + timedelta(seconds=seconds)
    tx.execute(update(NodeRow).where(NodeRow.address == node).values(shun_until=until))


def stop_offering(tx: Tx, node: str) -> None:
    """Offer this node no more jobs until it connects anew."""
    tx.execute(update(NodeRow).where(NodeRow.address == node).values(draining=True))


def drain(tx: Tx, node: str, reason: str) -> list[str]:
    """Offer this node no more jobs and tell recovery to move those it holds; returns their ids."""
    stop_offering(tx, node)
    emit(tx, "node.draining", {"node": node, "reason": reason})
    held = select(AwardRow.job_id).where(AwardRow.node == node, AwardRow.ended_at.is_(None))
    job_ids = list(tx.scalars(held.distinct().order_by(AwardRow.job_id)))
    for job_id in job_ids:
        emit(tx, "job.wished", {"job_id": job_id})
    return job_ids


PROBE_CHANNEL = "everlease_probe"
"""NOTIFY payload: the node's address."""


def suspect(tx: Tx, node: str, at: datetime, *, probe: bool) -> None:
    """Note that a node is silent; with ``probe`` the gateway is asked to ping it once."""
    values: dict[str, Any] = {"liveness": "SUSPECT"}
    if probe:
        values["probe_sent_at"] = at
        tx.execute(select(func.pg_notify(PROBE_CHANNEL, node)))
    tx.execute(update(NodeRow).where(NodeRow.address == node).values(**values))


def mark_lost(tx: Tx, node: str, last_seen: datetime | None) -> bool:
    """Declare a node LOST and count it, unless it was heard since ``last_seen``; False where it was."""
    found = tx.execute(
        update(NodeRow)
        .where(NodeRow.address == node, NodeRow.last_seen.is_not_distinct_from(last_seen))
        .values(liveness="LOST", losses=NodeRow.losses + case((NodeRow.liveness == "LOST", 0), else_=1))
        .returning(NodeRow.address)
    ).one_or_none()
    return found is not None


def heard(tx: Tx) -> tuple[int, datetime | None]:
    """How many nodes have a session that they did not end, and when any of them was last heard."""
    count, last = tx.execute(
        select(func.count(), func.max(NodeRow.last_seen)).where(
            NodeRow.session.is_not(None), NodeRow.disconnected_at.is_(None), NodeRow.liveness != "LOST"
        )
    ).one()
    return int(count), last
