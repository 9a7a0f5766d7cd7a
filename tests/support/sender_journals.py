"""The two journals as the fault schedules use them: a process that dies loses its journal object, not what it wrote."""

from collections.abc import Callable
from typing import Protocol

from sqlalchemy import select

from everlease.chain.journal import Journal
from everlease.chain.memory_journal import MemoryJournal
from everlease.db import Database
from everlease.db import journal as db_journal
from everlease.db.journal import PostgresJournal, entry
from everlease.db.models.outbox import TxRow
from everlease.domain.transactions import JournalTx


class Desk(Protocol):
    """Where actions are journaled and looked up."""

    def start(self, process: int) -> Journal:
        """The journal as this process sees it when it has just been started; its predecessor is dead."""
        ...

    def enqueue(self, key: str, sender: str, to: str, data: bytes, job_id: str | None, *, again: bool) -> None:
        """Journal an action."""
        ...

    def rows(self) -> list[JournalTx]:
        """All that was ever journaled, oldest first."""
        ...

    def close(self) -> None:
        """Give everything back."""
        ...


class MemoryDesk:
    """One MemoryJournal that outlives every process."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._journal = MemoryJournal(clock)

    def start(self, process: int) -> Journal:
        return self._journal

    def enqueue(self, key: str, sender: str, to: str, data: bytes, job_id: str | None, *, again: bool) -> None:
        self._journal.enqueue(key, sender, to, data, job_id=job_id, again=again)

    def rows(self) -> list[JournalTx]:
        return self._journal.rows()

    def close(self) -> None:
        return


class PostgresDesk:
    """A database; each process has connections of its own, which end with it."""

    def __init__(self, url: str, clock: Callable[[], float]) -> None:
        self._url, self._clock = url, clock
        self._desk = Database(url, pool_size=1)
        self._processes: dict[int, Database] = {}

    def start(self, process: int) -> Journal:
        if process in self._processes:
            self._processes[process].close()
        self._processes[process] = Database(self._url, pool_size=1)
        return PostgresJournal(self._processes[process], self._clock)

    def enqueue(self, key: str, sender: str, to: str, data: bytes, job_id: str | None, *, again: bool) -> None:
        with self._desk.transaction() as tx:
            db_journal.enqueue(
                tx, action_key=key, sender=sender, to=to, data=data, call="test", job_id=job_id, again=again
            )

    def rows(self) -> list[JournalTx]:
        with self._desk.transaction() as tx:
            return [entry(row) for row in tx.scalars(select(TxRow).order_by(TxRow.id))]

    def close(self) -> None:
        for database in (self._desk, *self._processes.values()):
            database.close()
