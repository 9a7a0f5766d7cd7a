"""A start that the marketplace takes back while it is under way runs nothing."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from threading import Event
from types import SimpleNamespace
from typing import cast

import pytest

from provider_agent import launch
from provider_agent.errors import StepFailed
from provider_agent.host import Host
from provider_agent.records import JobRecord
from provider_agent.runtime.container import JobContainer
from provider_agent.runtime.errors import ContainerFault


class Engine:
    """Notes what is done to a container."""

    def __init__(self, state: Path) -> None:
        self.state, self.done = state, list[str]()
        self.at_start: Callable[[], None] = lambda: None

    def start(self, container: str) -> None:
        self.done.append("start")
        self.at_start()

    def kill(self, container: str) -> None:
        self.done.append("kill")


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Engine:
    found = Engine(tmp_path)
    guards = SimpleNamespace(
        extend=lambda *_: None,
        ensure=lambda *_: found.done.append("guard"),
        thaw=lambda *_: found.done.append("thaw"),
        freeze=lambda *_: found.done.append("freeze"),
    )
    monkeypatch.setattr(launch, "guards", guards)
    return found


def host(engine: Engine, lease_s: float = 60.0) -> Host:
    clock = SimpleNamespace(boottime=lambda: 100.0, unix=lambda: 5000.0)
    return cast(Host, SimpleNamespace(clock=clock, deadline=lambda: 100.0 + lease_s, engine=engine))


def started(engine: Engine, allowed: Callable[[], bool]) -> float:
    container = cast(JobContainer, SimpleNamespace(id="c" * 64))
    return launch._run(host(engine), container, False, allowed)


def test_what_is_allowed_starts_behind_its_guard(engine: Engine) -> None:
    started(engine, lambda: True)
    assert engine.done == ["guard", "thaw", "start"]


def test_withdrawn_while_the_guard_came_up_it_never_starts(engine: Engine) -> None:
    with pytest.raises(StepFailed, match="taken the job away"):
        started(engine, lambda: "guard" not in engine.done)
    assert engine.done == ["guard", "freeze", "kill"]


def test_withdrawn_between_thaw_and_start_it_is_frozen_again(engine: Engine) -> None:
    with pytest.raises(StepFailed):
        started(engine, lambda: "thaw" not in engine.done)
    assert engine.done == ["guard", "thaw", "freeze", "kill"]


def test_withdrawn_during_the_start_it_is_frozen_and_killed(engine: Engine) -> None:
    with pytest.raises(StepFailed):
        started(engine, lambda: "start" not in engine.done)
    assert engine.done == ["guard", "thaw", "start", "freeze", "kill"]


def test_withdrawn_with_its_cgroup_gone_it_is_killed_all_the_same(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: object) -> None:
        raise ContainerFault("freeze", "c", "its cgroup is gone")

    monkeypatch.setattr(launch.guards, "freeze", gone)
    with pytest.raises(StepFailed, match="taken the job away"):
        started(engine, lambda: "start" not in engine.done)
    assert engine.done[-1] == "kill"


def wait(engine: Engine, cancel: Event, lease_s: float, *, allowed: bool) -> None:
    asyncio.run(launch._wait_for_lease(host(engine, lease_s), -1.0, lambda: allowed, cancel))


def test_a_good_lease_of_the_node_does_not_start_what_was_cancelled(engine: Engine) -> None:
    cancel = Event()
    wait(engine, cancel, 60.0, allowed=True)
    cancel.set()
    with pytest.raises(StepFailed, match="taken the job away"):
        wait(engine, cancel, 60.0, allowed=True)


def test_a_good_lease_of_the_node_does_not_start_what_is_not_confirmed(engine: Engine) -> None:
    with pytest.raises(StepFailed, match="acknowledges no heartbeat") as caught:
        wait(engine, Event(), 60.0, allowed=False)
    assert caught.value.retryable


def test_a_moment_that_has_passed_does_not_start_what_was_cancelled(engine: Engine) -> None:
    cancel = Event()
    asyncio.run(launch._wait_until(host(engine), 100.0, cancel))
    cancel.set()
    with pytest.raises(StepFailed):
        asyncio.run(launch._wait_until(host(engine), 100.0, cancel))


def test_the_wall_clock_has_no_say_in_when_the_former_host_is_fenced(engine: Engine) -> None:
    waits = cast(SimpleNamespace, host(engine))
    moments = iter([100.0, 100.0, 100.05, 100.15])
    waits.clock.boottime = lambda: next(moments)
    waits.clock.unix = lambda: 1e12
    asyncio.run(launch._wait_until(cast(Host, waits), 100.1, Event()))
    with pytest.raises(StopIteration):
        waits.clock.boottime()


@pytest.mark.parametrize("back", [True, False])
def test_a_start_waits_for_docker_for_a_while_and_then_is_the_hosts_fault(engine: Engine, back: bool) -> None:
    """Without that a daemon that hangs would hold the start, and the marketplace, for eleven minutes."""
    waits = cast(SimpleNamespace, host(engine))
    moments = iter([0.0, launch.DOCKER_S, launch.DOCKER_S + 1])
    answers = iter([None, "d" if back else None, None])
    waits.clock.boottime = lambda: next(moments)
    waits.daemon = lambda: next(answers)
    record = cast(JobRecord, SimpleNamespace(container="c" * 64))
    waiting = launch._wait_for_docker(cast(Host, waits), record, Event())
    if back:
        asyncio.run(waiting)
        return
    with pytest.raises(StepFailed, match="Docker daemon does not answer") as caught:
        asyncio.run(waiting)
    assert caught.value.retryable
    assert caught.value.data["host_fault"]
    assert engine.done == ["kill"], "what ran by an earlier try does not outlive the answer"
