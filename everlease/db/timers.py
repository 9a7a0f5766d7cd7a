"""What time alone brings up: answer windows, expired escrows; and who may watch the clock."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
from sqlalchemy import exists, func, select

from everlease.db.engine import Database, DatabaseUnavailable, Tx
from everlease.db.locks import try_lock
from everlease.db.models.jobs import JobRow
from everlease.db.models.mirror import CursorRow, EscrowRow, LeaseRow
from everlease.db.models.outbox import TxRow
from everlease.db.terms import order_of, params_of
from everlease.domain.job import ENDED, JobState
from everlease.domain.lease import LeaseState
from everlease.domain.terms import LeaseParams, Order
from everlease.domain.transactions import OPEN

_ENDED = tuple(state.value for state in ENDED)


def unfinished(tx: Tx, now: datetime, after: str = "", limit: int = 500) -> Sequence[str]:
    """Jobs that have not ended, or are asked to go on, by id after ``after``, a page at a time.

    One that waits for its deposit is left out until that is mirrored, its time is up or its tenant wants something:
    posting orders costs nothing, so it must not keep the workers busy.
    """
    funded = exists(select(EscrowRow.job_id).where(EscrowRow.job_id == JobRow.id))
    waits = (JobRow.state == JobState.PENDING) & (JobRow.due_at > now) & JobRow.wish.is_(None) & ~funded
    goes_on = JobRow.state.not_in(_ENDED) | JobRow.wish.is_not(None)
    return tx.scalars(
        select(JobRow.id)
        .where(goes_on, ~func.coalesce(waits, False), JobRow.id > after)
        .order_by(JobRow.id)
        .limit(limit)
    ).all()


def unsettled(tx: Tx, limit: int = 500) -> Sequence[str]:
    """Jobs that ended while a lease of theirs is still ACTIVE on chain."""
    return tx.scalars(
        select(JobRow.id)
        .join(LeaseRow, LeaseRow.job_id == JobRow.id)
        .where(JobRow.state.in_(_ENDED), LeaseRow.state == LeaseState.ACTIVE)
        .distinct()
        .order_by(JobRow.id)
        .limit(limit)
    ).all()


def in_state(tx: Tx, state: JobState, limit: int = 1000) -> Sequence[str]:
    """Jobs in one state."""
    return tx.scalars(select(JobRow.id).where(JobRow.state == state).order_by(JobRow.id).limit(limit)).all()


def failable(tx: Tx, watcher: str, now: int, limit: int = 100) -> list[LeaseParams]:
    """SUSPENDED leases of jobs posted here whose suspension is final and whose answer window is strictly over."""
    final = select(CursorRow.final_number).scalar_subquery()
    found = tx.execute(
        select(LeaseRow, EscrowRow)
        .join(EscrowRow, EscrowRow.job_id == LeaseRow.job_id)
        .join(JobRow, JobRow.id == LeaseRow.job_id)
        .where(
            LeaseRow.state == LeaseState.SUSPENDED,
            LeaseRow.answer_by < now,
            LeaseRow.block <= final,
            EscrowRow.watcher == watcher,
        )
        .order_by(LeaseRow.answer_by)
        .limit(limit)
    )
    return [params_of(lease, escrow) for lease, escrow in found]


def closable(tx: Tx, watcher: str, now: int, limit: int = 100) -> list[LeaseParams]:
    """ACTIVE leases of jobs posted here that anyone may close: their end and its window are over (a notice, or the
    order's deadline).
    """
    found = tx.execute(
        select(LeaseRow, EscrowRow)
        .join(EscrowRow, EscrowRow.job_id == LeaseRow.job_id)
        .join(JobRow, JobRow.id == LeaseRow.job_id)
        .where(LeaseRow.state == LeaseState.ACTIVE, LeaseRow.closable_at < now, EscrowRow.watcher == watcher)
        .order_by(LeaseRow.closable_at)
        .limit(limit)
    )
    return [params_of(lease, escrow) for lease, escrow in found]


@dataclass(frozen=True)
class Refundable:
    """An escrow that is over; ``block`` is the last that changed it."""

    job_id: str
    order: Order
    block: int


REFUNDS_AT_ONCE = 10
"""How many refunds may be under way: anybody can pay into any escrow, and recoveries use the same key."""
_DAY = timedelta(days=1)


def refundable(tx: Tx, watcher: str, now: int) -> list[Refundable]:
    """Escrows of jobs posted here, past their deadline, with free money, no active lease, and nothing younger than
    finality.

    A few at a time, and a job once a day: what was paid in since then its tenant may take back at any time.
    """
    final = select(CursorRow.final_number).scalar_subquery()
    under_way = tx.scalar(select(func.count()).where(TxRow.call == "refund", TxRow.state.in_(sorted(OPEN)))) or 0
    lately = exists(
        select(TxRow.id).where(
            TxRow.job_id == EscrowRow.job_id,
            TxRow.call == "refund",
            TxRow.state != "failed",
            TxRow.created_at > datetime.fromtimestamp(now, UTC) - _DAY,
        )
    )
    found = tx.scalars(
        select(EscrowRow)
        .join(JobRow, JobRow.id == EscrowRow.job_id)
        .where(
            EscrowRow.deadline < now,
            EscrowRow.balance > EscrowRow.reserved,
            EscrowRow.active_lease.is_(None),
            EscrowRow.block <= final,
            EscrowRow.watcher == watcher,
            ~lately,
        )
        .order_by(EscrowRow.deadline)
        .limit(max(REFUNDS_AT_ONCE - under_way, 0))
    )
    return [Refundable(row.job_id, order_of(row), row.block) for row in found]


def chain_time(tx: Tx) -> int | None:
    """Unix seconds of the newest block that was mirrored."""
    return tx.scalar(select(CursorRow.block_time))


@dataclass(frozen=True)
class Watch:
    """The one active monitor's hold on the database: a session's advisory lock, which ends with the process."""

    connection: psycopg.Connection[Any]

    def now(self) -> float:
        """Unix seconds by the database's clock, the one that stamps ``last_seen``; raises DatabaseUnavailable."""
        try:
            row = self.connection.execute("SELECT extract(epoch FROM clock_timestamp())::float8").fetchone()
        except psycopg.OperationalError as error:
            raise DatabaseUnavailable(str(error).split("\n")[0]) from error
        assert row is not None
        return float(row[0])


@contextmanager
def hold_watch(database: Database, key: int) -> Iterator[Watch | None]:
    """Become the one active monitor until the block ends; yields None where another one is.

    Raises DatabaseUnavailable.
    """
    with try_lock(database, key) as held:
        yield Watch(held) if held is not None else None
