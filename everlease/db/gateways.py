"""Gateways: which ones are up, and the sessions of nodes that ended with theirs.

A gateway shares the advisory lock (LOCK, its id) for as long as it listens. The lock goes with its connection: with the
process at once, with its host or network once PostgreSQL misses the keepalives (see ``notify``). No clock is compared.
"""

import secrets
from datetime import timedelta

from sqlalchemy import ColumnElement, func, select, text, update

from everlease.db.engine import Tx
from everlease.db.models.nodes import NodeRow

LOCK = 0x6761_7465
"""The first key of the locks ("gate")."""
QUIET = timedelta(seconds=2)
"""A node that was heard within this time is connected: its gateway may have lost the lock and live on."""
_PRESENT = text(
    "SELECT objid::bigint FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 2"
    " AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) AND classid::bigint = :lock"
)


def new_id() -> int:
    """An id for a gateway's process."""
    return secrets.randbits(31)


def present(tx: Tx) -> frozenset[int]:
    """The ids of the gateways that are up. Without one no node can be heard, whatever became of its host."""
    return frozenset(tx.scalars(_PRESENT, {"lock": LOCK}))


def sever(tx: Tx, session: str) -> None:
    """Its gateway ended this session: the node is not connected until it is heard again."""
    _sever(tx, NodeRow.session == session)


def sever_orphans(tx: Tx) -> int:
    """The same for every session whose gateway is gone; returns how many."""
    orphaned = NodeRow.gateway.is_not(None) & NodeRow.gateway.not_in(sorted(present(tx)))
    silent = NodeRow.last_seen < func.clock_timestamp() - QUIET
    # A row that somebody holds is being written by a heartbeat or a new session: it waits for the next look.
    found = select(NodeRow.address).where(orphaned, silent, NodeRow.connected).with_for_update(skip_locked=True)
    return _sever(tx, NodeRow.address.in_(found))


def _sever(tx: Tx, which: ColumnElement[bool]) -> int:
    cut = update(NodeRow).where(which, NodeRow.connected).values(severed_at=func.clock_timestamp())
    return len(tx.scalars(cut.returning(NodeRow.address)).all())
