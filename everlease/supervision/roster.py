"""What is known of each piece of background work: its state, its restarts, how long it has been silent."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

FIRST_WAIT_S, LONGEST_WAIT_S = 0.2, 30.0
STEADY_S = 60.0
"""A run that lasted so long was no failed start: the wait before the next one is short again."""

Clock = Callable[[], float]
Alive = Callable[[], None]
"""Called by a piece of work to say that it goes on. Cheap, and safe from any thread."""
Report = Callable[[str, str, BaseException | None], None]
"""Told of the task's name, what became of it, and the error if there was one."""


class TaskState(StrEnum):
    """``waiting``: it ended and is started again soon."""

    RUNNING = "running"
    WAITING = "waiting"
    STALLED = "stalled"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class TaskStatus:
    """One piece of work at one moment. ``silent_s``: seconds since it last said that it goes on."""

    name: str
    state: TaskState
    vital: bool
    restarts: int
    silent_s: float

    @property
    def well(self) -> bool:
        """Whether it runs."""
        return self.state is TaskState.RUNNING


class Record:
    """One piece of work, as its supervisor keeps it."""

    def __init__(self, name: str, silent_at_most_s: float, vital: bool, clock: Clock) -> None:
        self.name, self.silent_at_most_s, self.vital = name, silent_at_most_s, vital
        self.restarts = 0
        self._clock = clock
        self._state = TaskState.WAITING
        self._began = self._alive_at = clock()
        self._wait = FIRST_WAIT_S
        self._told = False

    def alive(self) -> None:
        """It goes on."""
        self._alive_at = self._clock()
        self._told = False

    def begin(self) -> None:
        """A run begins."""
        self._state = TaskState.RUNNING
        self._began = self._clock()
        self.alive()

    def over(self) -> float:
        """A run is over that should not be; returns the seconds to wait before the next one."""
        if self._clock() - self._began >= STEADY_S:
            self._wait = FIRST_WAIT_S
        wait, self._wait = self._wait, min(self._wait * 2, LONGEST_WAIT_S)
        self.restarts += 1
        self._state = TaskState.WAITING
        return wait

    def stop(self) -> None:
        """It is over for good, as it should be."""
        self._state = TaskState.STOPPED

    @property
    def silent_s(self) -> float:
        """Seconds since it last said that it goes on."""
        return self._clock() - self._alive_at

    @property
    def state(self) -> TaskState:
        """The state now: a running one that is silent for too long has stalled."""
        if self._state is TaskState.RUNNING and self.silent_s > self.silent_at_most_s:
            return TaskState.STALLED
        return self._state

    def newly_stalled(self) -> bool:
        """Whether it has stalled and that was not asked since."""
        if self.state is not TaskState.STALLED or self._told:
            return False
        self._told = True
        return True


class Roster:
    """All the background work of a process. May be read from any thread."""

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._records: dict[str, Record] = {}

    def add(self, name: str, silent_at_most_s: float, vital: bool) -> Record:
        """A new piece of work. Raises ValueError where the name is taken."""
        if name in self._records:
            raise ValueError(f"there is a task {name} already")
        record = self._records[name] = Record(name, silent_at_most_s, vital, self._clock)
        return record

    def newly_stalled(self) -> list[Record]:
        """Work that stalled since this was last asked."""
        return [record for record in list(self._records.values()) if record.newly_stalled()]

    def statuses(self) -> list[TaskStatus]:
        """Each piece of work, in the order in which it was started."""
        return [
            TaskStatus(record.name, record.state, record.vital, record.restarts, max(record.silent_s, 0.0))
            for record in list(self._records.values())
        ]

    @property
    def ready(self) -> bool:
        """Whether all vital work runs."""
        return all(status.well for status in self.statuses() if status.vital)

    def lines(self) -> dict[str, str]:
        """For a readiness answer: by task, "ok" or its state. Causes are for the log: anybody may ask."""
        return {f"task {it.name}": "ok" if it.well else it.state.value for it in self.statuses()}
