"""Background work is started again when it ends, and seen when it stalls."""

import asyncio
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from everlease.supervision import Alive, Roster, TaskState, TaskSupervisor, ThreadSupervisor, roster, tasks
from everlease.supervision.prometheus import TaskCollector

Told = list[tuple[str, str, BaseException | None]]


def teller(told: Told) -> Callable[[str, str, BaseException | None], None]:
    return lambda name, what, error: told.append((name, what, error))


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roster, "FIRST_WAIT_S", 0.01)
    monkeypatch.setattr(tasks, "GRACE_S", 0.05)


def test_the_wait_doubles_up_to_a_bound_and_is_short_again_after_a_steady_run() -> None:
    now = [0.0]
    record = Roster(lambda: now[0]).add("a", 10, vital=True)
    waits = []
    for _ in range(20):
        record.begin()
        waits.append(record.over())
    assert waits[:4] == [0.01, 0.02, 0.04, 0.08]
    assert waits[-1] == roster.LONGEST_WAIT_S
    record.begin()
    now[0] += roster.STEADY_S
    assert record.over() == 0.01
    assert record.restarts == 21


def test_a_task_that_fails_or_ends_is_started_again_and_told_of() -> None:
    told: Told = []
    runs: list[int] = []

    async def work(alive: Alive) -> None:
        runs.append(1)
        if len(runs) == 1:
            raise RuntimeError("a bug")
        if len(runs) == 2:
            return
        await asyncio.Event().wait()

    async def scene() -> None:
        supervisor = TaskSupervisor(teller(told))
        supervisor.start("work", work, silent_at_most_s=60)
        await asyncio.sleep(0.2)
        (status,) = supervisor.roster.statuses()
        assert (status.state, status.restarts) == (TaskState.RUNNING, 2)
        await supervisor.close()
        assert supervisor.roster.lines() == {"task work": "stopped"}

    asyncio.run(scene())
    assert [(name, what, str(error)) for name, what, error in told] == [
        ("work", "failed", "a bug"),
        ("work", "ended", "None"),
    ]


def test_a_task_that_stalls_is_cancelled_and_started_again() -> None:
    told: Told = []
    ends: list[str] = []

    async def work(alive: Alive) -> None:
        try:
            for _ in range(5):
                alive()
                await asyncio.sleep(0.02)
            await asyncio.Event().wait()
        finally:
            ends.append("cancelled")

    async def scene() -> None:
        supervisor = TaskSupervisor(teller(told))
        supervisor.start("work", work, silent_at_most_s=0.1)
        await asyncio.sleep(0.45)
        assert supervisor.roster.statuses()[0].restarts == 1
        assert len(ends) == 1
        await supervisor.close()

    asyncio.run(scene())
    assert [what for _, what, _ in told] == ["said nothing for 0 s"]


@pytest.mark.parametrize("steps", [1, 3])
def test_a_loop_that_stood_still_makes_nobody_look_stalled(steps: int) -> None:
    """Nor does it where the work has a few things to do before it says again that it goes on."""
    told: Told = []

    async def work(alive: Alive) -> None:
        while True:
            alive()
            for _ in range(steps):
                await asyncio.sleep(0.01)

    async def scene() -> None:
        supervisor = TaskSupervisor(teller(told))
        supervisor.start("work", work, silent_at_most_s=0.1)
        await asyncio.sleep(0.05)
        time.sleep(0.5)  # noqa: ASYNC251  (the loop stands still)
        await asyncio.sleep(0.1)
        await supervisor.close()

    asyncio.run(scene())
    assert told == []


def test_a_run_that_was_given_up_speaks_for_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """It doesn't end though it was cancelled, and goes on to say that it is alive; the next one says nothing."""
    monkeypatch.setattr(tasks, "ENDING_S", 0.05)
    told: Told = []
    runs: list[int] = []
    over = asyncio.Event()

    async def work(alive: Alive) -> None:
        runs.append(1)
        first = len(runs) == 1
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        while first and not over.is_set():
            alive()
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(0.02)

    async def scene() -> None:
        supervisor = TaskSupervisor(teller(told))
        supervisor.start("work", work, silent_at_most_s=0.1)
        await asyncio.sleep(1)
        over.set()
        await supervisor.close()

    asyncio.run(scene())
    assert len(told) > 1, "the second run was seen to say nothing"


def test_a_thread_that_fails_exits_or_ends_is_started_again() -> None:
    told: Told = []
    stop = threading.Event()
    runs: list[int] = []

    def work(alive: Alive) -> None:
        runs.append(1)
        if len(runs) == 1:
            raise RuntimeError("a bug")
        if len(runs) == 2:
            sys.exit(1)
        if len(runs) > 3:
            stop.wait()

    supervisor = ThreadSupervisor(stop, teller(told))
    supervisor.start("work", work, silent_at_most_s=60)
    until = time.monotonic() + 10
    while len(runs) < 4 and time.monotonic() < until:
        time.sleep(0.01)
    assert supervisor.roster.ready
    assert supervisor.roster.statuses()[0].restarts == 3
    stop.set()
    supervisor.join()
    assert [what for _, what, _ in told] == ["failed", "failed", "ended"]
    assert supervisor.roster.lines() == {"task work": "stopped"}


def test_a_thread_that_stalls_is_told_of_once_and_makes_the_process_unready(monkeypatch: pytest.MonkeyPatch) -> None:
    from everlease.supervision import threads

    monkeypatch.setattr(threads, "LOOK_EVERY_S", 0.02)
    told: Told = []
    stop = threading.Event()
    supervisor = ThreadSupervisor(stop, teller(told))
    supervisor.start("vital", lambda alive: stop.wait() and None, silent_at_most_s=0.1)
    supervisor.start("other", lambda alive: stop.wait() and None, silent_at_most_s=0.1, vital=False)
    time.sleep(0.5)
    assert not supervisor.roster.ready
    assert supervisor.roster.lines() == {"task vital": "stalled", "task other": "stalled"}
    assert sorted(name for name, _, _ in told) == ["other", "vital"]
    stop.set()
    supervisor.join()


def test_work_that_is_not_vital_has_a_line_and_leaves_the_process_ready() -> None:
    now = [0.0]
    found = Roster(lambda: now[0])
    found.add("upkeep", 10, vital=False).begin()
    found.add("listener", 1000, vital=True).begin()
    now[0] = 100
    assert found.ready
    assert found.lines() == {"task upkeep": "stalled", "task listener": "ok"}


def test_metrics_tell_of_every_task() -> None:
    now = [0.0]
    found = Roster(lambda: now[0])
    found.add("listener", 10, vital=True).begin()
    found.add("upkeep", 10, vital=False).over()
    now[0] = 3.0
    registry = CollectorRegistry()
    registry.register(TaskCollector(found))
    text = generate_latest(registry).decode()
    assert 'everlease_task_up{task="listener"} 1.0' in text
    assert 'everlease_task_up{task="upkeep"} 0.0' in text
    assert 'everlease_task_restarts_total{task="upkeep"} 1.0' in text
    assert 'everlease_task_silent_seconds{task="listener"} 3.0' in text
