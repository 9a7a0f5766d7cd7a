"""While a container's cgroup holds tasks, Docker is asked now and then; once it is empty, at once."""

import asyncio
import json
from pathlib import Path
from threading import Event
from types import SimpleNamespace
from typing import Any, cast

import pytest

from everlease.wire.commands import Prepare
from provider_agent import verdict
from provider_agent.host import Host
from provider_agent.journal import Journal
from provider_agent.records import JobRecord
from provider_agent.runtime import oci, parked
from provider_agent.runtime.errors import ContainerFault

JOB, CONTAINER = "0x" + "ab" * 32, "c" * 64
AWAY_S = 120.0


class Engine:
    """A container that ends when its cgroup is emptied, and a Docker that may be away."""

    def __init__(self, state: Path, events: Path) -> None:
        self.state, self._events, self.asked = state, events, 0
        self.away, self.killed = False, list[str]()
        self.awaited, self.again = 0, Event()

    def kill(self, container: str) -> None:
        self.killed.append(container)

    def inspect(self, container: str) -> Any:
        self.asked += 1
        if self.asked == self.awaited:
            self.again.set()
        if self.away:
            raise ContainerFault("inspect", container[:12], "connection refused", retryable=True)
        ended = "populated 0" in self._events.read_text()
        return SimpleNamespace(exit_code=3 if ended else None, status="running", oom_killed=False)


def host_of(root: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Host, Engine, Path]:
    """A host whose container's cgroup.events is the file that is returned."""
    monkeypatch.setattr(verdict, "POLL_S", 0.001)
    monkeypatch.setattr(verdict, "MOMENT_S", 0.0)
    monkeypatch.setattr(verdict.daemon_identity, "shutting_down", lambda: False)
    cgroup = root / "cgroup"
    cgroup.mkdir()
    events = cgroup / "cgroup.events"
    events.write_text("populated 1\nfrozen 0\n")
    folder = oci.container_folder(root, CONTAINER)
    folder.mkdir(parents=True)
    (folder / "outer.json").write_text(json.dumps({"path": str(cgroup), "version": 2, "name": "x"}))
    engine, journal = Engine(root, events), Journal(root / "journal.db")
    prepare = Prepare(job_id=JOB, fence=1, step="prepare/1", spec={}, store_token="t")
    journal.put_job(JobRecord(job_id=JOB, fence=1, phase="running", prepare=prepare, container=CONTAINER, daemon="d"))
    clock = SimpleNamespace(now=0.0, boottime=lambda: clock.now)
    settings = SimpleNamespace(docker_away_s=AWAY_S)
    found = SimpleNamespace(engine=engine, journal=journal, daemon=lambda: "d", clock=clock, settings=settings)
    return cast(Host, found), engine, events


def test_an_exit_waits_for_what_a_killed_dump_left_and_is_then_the_hosts_doing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host, _, events = host_of(tmp_path, monkeypatch)
    folder = oci.container_folder(tmp_path, CONTAINER)
    (folder / "dump.session").write_text("1")
    events.write_text("populated 0\nfrozen 0\n")

    async def ends() -> verdict.End:
        waiting = asyncio.create_task(verdict.wait(host, JOB))
        await asyncio.sleep(0.1)
        assert not waiting.done(), "whose doing it was isn't known yet"
        (folder / "broken").write_text("")
        parked.forget_session(folder)
        return await waiting

    end = asyncio.run(ends())
    assert (end.code, end.fault) == (3, parked.BROKEN)


def test_docker_is_spared_while_the_cgroup_holds_tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host, engine, events = host_of(tmp_path, monkeypatch)
    looks = 0
    real = verdict._look

    async def look(*args: Any, **words: Any) -> Any:
        nonlocal looks
        looks += 1
        if looks == 35:
            events.write_text("populated 0\nfrozen 0\n")
        return await real(*args, **words)

    monkeypatch.setattr(verdict, "_look", look)
    assert asyncio.run(verdict.wait(host, JOB)).code == 3
    assert looks == 35, "the end is seen at the first look after it"
    assert engine.asked <= 35 / verdict.SAME_EVERY + 2


async def asked_again(engine: Engine) -> None:
    """Until Docker was asked some more times."""
    engine.again.clear()
    engine.awaited = engine.asked + 3
    assert await asyncio.to_thread(engine.again.wait, 10)


async def undecided(waiting: "asyncio.Task[verdict.End]", engine: Engine, clock: Any, seconds: float) -> None:
    """So much later, after some more looks, nothing has ended yet."""
    clock.now += seconds
    await asked_again(engine)
    assert not waiting.done()


@pytest.mark.parametrize("speaks", [False, True], ids=["away", "a socket that nobody answers at"])
def test_docker_that_stays_away_from_a_container_without_tasks_is_the_hosts_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, speaks: bool
) -> None:
    host, engine, events = host_of(tmp_path, monkeypatch)
    clock: Any = host.clock

    async def ends() -> verdict.End:
        engine.away = not speaks
        object.__setattr__(host, "daemon", lambda: None)
        waiting = asyncio.create_task(verdict.wait(host, JOB))
        clock.now += 10 * AWAY_S
        await asyncio.sleep(0.05)
        assert not waiting.done(), "what has tasks goes on without Docker"
        events.write_text("populated 0\nfrozen 0\n")
        await asked_again(engine)
        await undecided(waiting, engine, clock, AWAY_S - 1)
        clock.now += 1
        async with asyncio.timeout(10):
            return await waiting

    end = asyncio.run(ends())
    assert end.fault == "the host's Docker daemon does not come back"
    assert engine.killed == [CONTAINER], "nothing begins to run in it when Docker is back"


def test_docker_that_answers_in_time_is_waited_for_anew_and_tells_whose_doing_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host, engine, events = host_of(tmp_path, monkeypatch)
    clock: Any = host.clock
    folder = oci.container_folder(tmp_path, CONTAINER)

    async def ends() -> verdict.End:
        engine.away = True
        events.write_text("populated 0\nfrozen 0\n")
        (folder / "dump.session").write_text("1")
        waiting = asyncio.create_task(verdict.wait(host, JOB))
        await asked_again(engine)
        await undecided(waiting, engine, clock, AWAY_S - 1)
        engine.away = False
        await undecided(waiting, engine, clock, 0)
        engine.away = True
        await undecided(waiting, engine, clock, 2)
        await undecided(waiting, engine, clock, AWAY_S - 1)
        engine.away = False
        parked.forget_session(folder)
        async with asyncio.timeout(10):
            return await waiting

    end = asyncio.run(ends())
    assert (end.code, end.fault, engine.killed) == (3, "", [])


def test_a_daemon_that_hangs_in_its_answer_is_away_too_and_is_asked_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verdict, "ANSWER_S", 0.01)
    host, engine, events = host_of(tmp_path, monkeypatch)
    clock: Any = host.clock
    hangs = Event()

    def inspect(container: str) -> Any:
        engine.asked += 1
        assert hangs.wait(30)
        raise ContainerFault("inspect", container[:12], "timed out", retryable=True)

    monkeypatch.setattr(engine, "inspect", inspect)

    async def ends() -> verdict.End:
        waiting = asyncio.create_task(verdict.wait(host, JOB))
        clock.now += 10 * AWAY_S
        await asyncio.sleep(0.1)
        assert not waiting.done(), "what has tasks goes on"
        events.write_text("populated 0\nfrozen 0\n")
        await asyncio.sleep(0.1)
        clock.now += AWAY_S - 1
        await asyncio.sleep(0.1)
        assert not waiting.done()
        clock.now += 1
        try:
            async with asyncio.timeout(10):
                return await waiting
        finally:
            hangs.set()

    assert asyncio.run(ends()).fault == verdict.AWAY
    assert engine.asked == 1, "each question would hold a thread"
