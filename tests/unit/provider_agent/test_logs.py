"""A job's output arrives once and in order, over restarts of the agent and steps of the clock, and before it leaves."""

import asyncio
import sqlite3
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import docker
import pytest

from everlease.wire.commands import Prepare
from provider_agent import logs as module
from provider_agent.host import Host
from provider_agent.journal import Journal
from provider_agent.logs import LogFollower
from provider_agent.records import JobRecord
from provider_agent.runtime.container import LABEL_FENCE, LABEL_JOB, LABEL_MODE, ContainerEngine
from tests.unit.provider_agent.test_container_log import Docker, numbers, stepped

JOB = "0x" + "ab" * 32


class Running(Docker):
    """A container that says more, and ends, when it is told to."""

    ended = False
    path = "/nowhere"

    def inspect_container(self, container: str) -> dict[str, Any]:
        state = {"Status": "exited" if self.ended else "running", "Pid": 0, "ExitCode": 0}
        labels = {LABEL_JOB: JOB, LABEL_FENCE: "1", LABEL_MODE: "files"}
        return {"Id": container, "Config": {"Labels": labels}, "State": state, "LogPath": self.path}


class Market:
    """Takes output only where it goes on."""

    def __init__(self) -> None:
        self.text = ""

    async def deliver(self, body: dict[str, Any]) -> None:
        assert body["offset"] == len(self.text)
        self.text += body["text"]
        await asyncio.sleep(0.01)


class Once(Market):
    """Keeps what it has, as the marketplace does of what comes again."""

    async def deliver(self, body: dict[str, Any]) -> None:
        known = len(self.text) - body["offset"]
        await super().deliver({**body, "offset": len(self.text), "text": body["text"][known:]})


def host_of(folder: Path, log: Running, market: Market) -> Host:
    journal = Journal(folder / "journal.db")
    if journal.job(JOB) is None:
        prepare = Prepare(job_id=JOB, fence=1, step="prepare/1", spec={}, store_token="t")
        journal.put_job(JobRecord(job_id=JOB, fence=1, phase="running", prepare=prepare))
    engine = ContainerEngine(cast(docker.DockerClient, SimpleNamespace(api=log)), folder)
    return cast(Host, SimpleNamespace(journal=journal, engine=engine, messenger=market))


def test_an_agent_that_starts_again_goes_on_though_the_clock_went_back(tmp_path: Path) -> None:
    whole, log, market = stepped().entries, Running([]), Market()

    async def life(until_now: int, *, ended: bool = False) -> None:
        log.entries, log.ended = whole[:until_now], ended
        follower = LogFollower(host_of(tmp_path, log, market), JOB, "c")
        task = asyncio.create_task(follower.run())
        await (follower.drained() if ended else follower.idle())
        follower.close()
        task.cancel()

    async def scenario() -> None:
        for until_now in (8, 12, 18, 25):
            await life(until_now)
            assert market.text == "".join(numbers(0, until_now))
        await life(30, ended=True)

    asyncio.run(scenario())
    assert market.text == "".join(numbers(0, 30))


def test_what_a_container_said_last_is_delivered_before_it_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log is read now and then; whoever waits for the last of it has it read at once."""
    monkeypatch.setattr(module, "READ_EVERY_S", 600.0)
    log, market = Running(stepped().entries[:10]), Market()

    async def scenario() -> None:
        follower = LogFollower(host_of(tmp_path, log, market), JOB, "c")
        task = asyncio.create_task(follower.run())
        await follower.idle()
        assert market.text == "".join(numbers(0, 10))
        log.entries = stepped().entries[:20]
        await follower.idle()
        assert market.text == "".join(numbers(0, 20))
        log.entries, log.ended = stepped().entries, True
        async with asyncio.timeout(5):
            await follower.drained()
        task.cancel()

    asyncio.run(scenario())
    assert market.text == "".join(numbers(0, 30))


def test_a_job_that_says_nothing_costs_docker_no_question(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its file tells; one that changed is read at the next look, and now and then any is."""
    monkeypatch.setattr(module, "READ_EVERY_S", 0.01)
    monkeypatch.setattr(module, "UNSEEN_AT_MOST", 10**9)
    log, market, file = Running(stepped().entries[:10]), Market(), tmp_path / "json.log"
    file.write_text("ten")
    log.path = str(file)

    async def until(text: str) -> None:
        for _ in range(1000):
            if market.text == text:
                return
            await asyncio.sleep(0.01)
        raise AssertionError(f"only {market.text!r} came")

    async def scenario() -> None:
        follower = LogFollower(host_of(tmp_path, log, market), JOB, "c")
        task = asyncio.create_task(follower.run())
        await until("".join(numbers(0, 10)))
        served = log.served
        await asyncio.sleep(0.3)
        assert log.served == served
        log.entries = stepped().entries[:20]
        file.write_text("twenty")
        await until("".join(numbers(0, 20)))
        follower.close()
        task.cancel()

    asyncio.run(scenario())


def test_a_position_that_could_not_be_written_down_doubles_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk was full: the run is begun again, and the reader of the one before ends."""
    monkeypatch.setattr(module, "READ_EVERY_S", 0.01)
    log, market = Running(stepped().entries[:10]), Once()
    host = host_of(tmp_path, log, market)
    write, full = host.journal.put_job, [True]

    def put_job(record: JobRecord) -> None:
        if full and full.pop():
            raise sqlite3.OperationalError("database or disk is full")
        write(record)

    monkeypatch.setattr(host.journal, "put_job", put_job)

    async def scenario() -> None:
        follower = LogFollower(host, JOB, "c")
        with pytest.raises(sqlite3.OperationalError):
            await follower.run()
        task = asyncio.create_task(follower.run())
        await follower.idle()
        log.entries = stepped().entries[:20]
        await follower.idle()
        assert sum(thread.name == "log c" for thread in threading.enumerate()) == 1
        follower.close()
        task.cancel()

    asyncio.run(scenario())
    assert market.text == "".join(numbers(0, 20))


def test_what_was_sent_and_not_answered_takes_no_room_of_the_next_container(tmp_path: Path) -> None:
    """The gateway may have it: what another container said at the same place would be dropped as a repeat."""

    class Silent(Market):
        def __init__(self) -> None:
            super().__init__()
            self.told = asyncio.Event()

        async def deliver(self, body: dict[str, Any]) -> None:
            await super().deliver(body)
            self.told.set()
            await asyncio.Event().wait()

    log, market = Running(stepped().entries), Silent()
    host = host_of(tmp_path, log, market)

    async def life() -> None:
        task = asyncio.create_task(LogFollower(host, JOB, "c").run())
        await market.told.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(life())
    record = host.journal.job(JOB)
    assert record is not None
    assert (record.stdout.offset, record.stdout.after().offset) == (0, len(market.text))


def test_a_log_that_takes_long_to_read_is_read_less_often(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a job says must not keep its host busy; nobody is slower for whom it is quick."""
    monkeypatch.setattr(module, "READ_EVERY_S", 0.01)
    log, market, begun, enough = Running(stepped().entries[:10]), Market(), list[float](), threading.Event()

    def slow() -> None:
        begun.append(time.monotonic())
        if len(begun) > 4:
            enough.set()
        time.sleep(0.1)

    log.before = slow

    async def scenario() -> None:
        follower = LogFollower(host_of(tmp_path, log, market), JOB, "c")
        task = asyncio.create_task(follower.run())
        await asyncio.to_thread(enough.wait)
        follower.close()
        task.cancel()

    asyncio.run(scenario())
    assert begun[4] - begun[3] > (1 + module.SPARED) * 0.1
