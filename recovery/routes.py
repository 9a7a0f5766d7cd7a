"""Which tasks an outbox event asks for. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

ADVANCE = "recovery.advance"
PUMP = "recovery.pump"
WAKE_WAITING = "recovery.wake_waiting"
WAKE_MIGRATING = "recovery.wake_migrating"
SWEEP_JOBS = "recovery.sweep_jobs"
SWEEP_COMMANDS = "recovery.sweep_commands"
SWEEP_LEASES = "recovery.sweep_leases"
SWEEP_STORAGE = "recovery.sweep_storage"

_QUIET = frozenset({"job.history", "tx.sent", "tx.mined", "tx.final", "auction.asked"})
"""Events that no decision about a job depends on (what was mined is told by the mirror)."""


@dataclass(frozen=True, slots=True)
class Task:
    """A Celery task and its arguments; equal ones in one batch are sent once."""

    name: str
    args: tuple[str, ...] = ()


def route(topic: str, payload: Mapping[str, Any]) -> list[Task]:
    """The tasks for one event."""
    if topic == "tx.enqueued":
        return [Task(PUMP)]
    if topic == "tx.dropped":
        return [Task(PUMP), *_advance(payload)]
    if topic in {"node.connected", "node.restated"}:
        return [Task(WAKE_WAITING)]
    if topic == "node.disconnected":
        return [Task(WAKE_MIGRATING)]
    if topic == "chain.reverted":
        return _advance(payload) or [Task(SWEEP_JOBS)]
    return [] if topic in _QUIET else _advance(payload)


def unique(tasks: Iterable[Task]) -> list[Task]:
    """Without repeats, in the order of first mention."""
    return list(dict.fromkeys(tasks))


def _advance(payload: Mapping[str, Any]) -> list[Task]:
    job_id = payload.get("job_id")
    return [Task(ADVANCE, (str(job_id),))] if job_id else []
