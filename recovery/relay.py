"""The outbox relay: events leave PostgreSQL for Celery after their commit; what the broker didn't take stays."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Protocol

import structlog
from celery import Celery
from kombu.exceptions import OperationalError

from everlease.db import Database, Tx, jobs, outbox
from everlease.db.engine import ValueRefused, savepoint
from everlease.db.outbox import OutboxEvent
from recovery import facts
from recovery.routes import ADVANCE, Task, route, unique

log = structlog.get_logger()
_BATCH = 200


class BrokerUnavailable(Exception):
    """The broker took nothing; the events stay unsent."""

    retryable = True


class Outlet(Protocol):
    """Where tasks go."""

    def send(self, task: Task) -> None:
        """Enqueue; raises BrokerUnavailable."""
        ...


class CeleryOutlet:
    """An outlet into Celery's broker."""

    def __init__(self, app: Celery) -> None:
        self._app = app

    def send(self, task: Task) -> None:
        """Enqueue; raises BrokerUnavailable."""
        try:
            self._app.send_task(task.name, args=task.args, retry=False)
        except (OperationalError, OSError) as error:
            raise BrokerUnavailable(str(error)) from error


def _keep(tx: Tx, event: OutboxEvent, now: float) -> None:
    """One node's nonsense must not stop the others' events: what can't be kept is undone and passed over."""
    try:
        with savepoint(tx):
            facts.keep(tx, event, now)
    except (KeyError, TypeError, ValueError, ArithmeticError, AttributeError, ValueRefused) as error:
        log.error("notice.malformed", id=event.id, error=str(error))


class Relay:
    """One batch at a time; several relays are safe, one is enough. A crash between send and mark sends twice."""

    def __init__(self, database: Database, outlet: Outlet, clock: Callable[[], float]) -> None:
        self._database = database
        self._outlet = outlet
        self._clock = clock
        self._dispatched: dict[str, float] = {}

    def forward(self) -> int:
        """Send one batch of events; returns its size. Raises BrokerUnavailable, DatabaseUnavailable."""
        with self._database.transaction() as tx:
            events = outbox.claim_unsent(tx, _BATCH)
            for event in events:
                if event.topic == outbox.NOTICE:
                    _keep(tx, event, self._clock())
        for task in unique(task for event in events for task in self._route(event)):
            self._outlet.send(task)
        with self._database.transaction() as tx:
            outbox.mark_sent(tx, [event.id for event in events])
        return len(events)

    def wake_due(self, again_after_s: float = 2.0) -> int:
        """Send a task for every job whose due time has come, once per ``again_after_s`` until it was looked at."""
        now = self._clock()
        with self._database.transaction() as tx:
            due = jobs.due(tx, datetime.fromtimestamp(now, UTC))
        waiting = [job_id for job_id in due if now - self._dispatched.get(job_id, 0.0) >= again_after_s]
        for job_id in waiting:
            self._outlet.send(Task(ADVANCE, (job_id,)))
            self._dispatched[job_id] = now
        self._dispatched = {job_id: at for job_id, at in self._dispatched.items() if now - at < again_after_s}
        return len(waiting)

    def _route(self, event: OutboxEvent) -> list[Task]:
        try:
            return route(event.topic, event.payload)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            log.error("outbox.malformed", topic=event.topic, id=event.id, error=str(error))
            return []
