"""A Docker that hangs, and anybody's calls for bids, do not keep heartbeats back; what waits too long is given up."""

import asyncio
import sqlite3
from pathlib import Path
from threading import Event
from types import SimpleNamespace
from typing import Any, cast

import pytest
from requests.exceptions import ConnectionError

from everlease.chain.typed_data import Domain
from everlease.wire.commands import Prepare, Stop
from everlease.wire.node import CallForBids, CommitAnswer, Receipts
from provider_agent import answers
from provider_agent import supervisor as module
from provider_agent.bidding import Declined
from provider_agent.clock import SystemClock
from provider_agent.heartbeat import Heartbeats
from provider_agent.host import Host
from provider_agent.identity import Identity
from provider_agent.jobs import Job
from provider_agent.journal import Journal
from provider_agent.link import Link
from provider_agent.mail import Mail
from provider_agent.records import JobRecord
from provider_agent.supervisor import MOST_CALLS, PREPARED_FOR_S, Supervisor
from tests.unit.provider_agent.test_journal import signed

JOB = "0x" + "ab" * 32


class Wire:
    """A link that keeps what is sent, and the heartbeats on it."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []
        self.beats = 0

    async def send(self, *message: Any) -> None:
        if isinstance(message[0], dict):
            self.sent.append(message[0])
        else:
            self.beats += 1


def test_calls_for_bids_that_hang_leave_room_for_heartbeats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hangs, wire = Event(), Wire()

    def consider(*_: object) -> None:
        assert hangs.wait(30)
        raise Declined("no")

    monkeypatch.setattr(module.bidding, "consider", consider)
    host = SimpleNamespace(journal=Journal(tmp_path / "journal.db"))
    centre = Supervisor(cast(Host, host), cast(Link, wire), cast(Mail, None), cast(Heartbeats, wire))
    call = cast(CallForBids, SimpleNamespace(auction_id=1))

    async def scenario() -> None:
        calls = [asyncio.create_task(centre._bid(call)) for _ in range(40)]
        try:
            await asyncio.sleep(0.1)  # the calls are under way
            async with asyncio.timeout(5):
                await centre._beat()
            assert wire.beats == 1
            assert len(wire.sent) == 40 - MOST_CALLS, "the others are declined at once"
        finally:
            hangs.set()
            await asyncio.gather(*calls)
        await centre._bid(call)
        assert wire.sent[-1]["reason"] == "no", "and it looks at calls again"

    asyncio.run(scenario())


def test_a_receipt_that_cannot_be_written_down_is_no_reason_to_end() -> None:
    def full(_: object) -> bool:
        raise sqlite3.OperationalError("database or disk is full")

    host = SimpleNamespace(journal=SimpleNamespace(keep_receipt=full))
    centre = Supervisor(cast(Host, host), cast(Link, None), cast(Mail, None), cast(Heartbeats, None))
    centre.received(Receipts(seq=1, receipts=[signed(1)]))


def test_nor_is_the_answer_to_a_commit_of_a_job_that_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    journal = Journal(tmp_path / "journal.db")
    monkeypatch.setattr(journal, "acknowledged", full)
    link = Link("ws://nowhere", cast(Identity, None), Domain(1, "0x"), journal, SystemClock())
    centre = Supervisor(cast(Host, SimpleNamespace(journal=journal)), link, cast(Mail, None), cast(Heartbeats, None))
    centre.received(CommitAnswer(seq=1, request="r", ok=True))


def test_a_host_with_a_job_or_about_to_leave_is_not_idle() -> None:
    held: list[object] = []
    host = SimpleNamespace(journal=SimpleNamespace(jobs=lambda: held))
    centre = Supervisor(cast(Host, host), cast(Link, None), cast(Mail, None), cast(Heartbeats, None))
    assert centre.idle()
    held.append(object())
    assert not centre.idle()
    held.clear()
    centre.draining = True
    assert not centre.idle()


def test_a_job_that_cannot_be_removed_while_docker_is_away_is_removed_once_it_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The marketplace refuses its heartbeats all the while: each refusal is a try, and no try is a fault of ours."""
    monkeypatch.setattr(module, "DROP_AGAIN_S", 0.0)
    away, tries = True, 0

    class Stuck:
        job_id = JOB

        async def refused(self) -> None:
            nonlocal tries
            tries += 1
            if away:
                raise ConnectionError("refused")

    host = SimpleNamespace(journal=Journal(tmp_path / "journal.db"))
    centre = Supervisor(cast(Host, host), cast(Link, None), cast(Mail, None), cast(Heartbeats, None))
    job = cast(Job, Stuck())
    centre.jobs[JOB] = job

    async def scenario() -> None:
        nonlocal away
        for _ in range(3):
            await centre._drop(job, "it moved")
            assert centre.jobs == {JOB: job}, "it stays, and so do its heartbeats"
        away = False
        await centre._drop(job, "it moved")

    asyncio.run(scenario())
    assert (tries, centre.jobs) == (4, {})
    assert "can't be removed yet" in caplog.text


def test_a_step_that_fails_for_want_of_docker_says_so_and_blames_no_checkpoint() -> None:
    async def fails() -> dict[str, Any]:
        raise ConnectionError("Connection aborted.")

    command = Stop(job_id=JOB, fence=1, step="stop/1", grace_s=0)
    said = asyncio.run(answers.answer(command, fails()))
    assert (said.ok, said.retryable, said.result) == (False, True, {"host_fault": answers.AWAY})


class Market(Wire):
    """A link whose other side acknowledges what came before a heartbeat, or is silent."""

    def __init__(self, *, connected: bool = True, silent: bool = False) -> None:
        super().__init__()
        self.connected, self._silent = connected, silent
        self._beaten = asyncio.Event()

    async def send(self, *message: Any) -> None:
        await super().send(*message)
        if not self._silent:
            self._beaten.set()

    async def deliver(self, body: dict[str, Any]) -> None:
        self.sent.append(body)
        await self._beaten.wait()


def test_a_restart_is_announced_and_the_answer_waits_until_it_has_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "HEARD_S", 0.2)
    host = SimpleNamespace(journal=Journal(tmp_path / "journal.db"))

    async def asked(wire: Market) -> dict[str, Any]:
        centre = Supervisor(cast(Host, host), cast(Link, wire), cast(Mail, None), cast(Heartbeats, wire))
        return await centre.restart()

    heard = Market()
    assert asyncio.run(asked(heard)) == {"ok": True}
    assert heard.sent == [{"type": "restarting"}]
    assert asyncio.run(asked(Market(silent=True))) == {"ok": False, "error": "the marketplace does not answer"}
    cut_off = Market(connected=False)
    assert not asyncio.run(asked(cut_off))["ok"]
    assert cut_off.sent == []


class Clock:
    """Wall time that may be set, and the time since the boot that may not."""

    def __init__(self) -> None:
        self.wall, self.boot = 1.8e9, 100.0

    def unix(self) -> float:
        return self.wall

    def boottime(self) -> float:
        return self.boot


def test_a_preparation_is_given_up_by_the_time_it_waited_whatever_the_clock_is_set_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id, clock, dropped = "0x" + "ab" * 32, Clock(), list[str]()
    host = SimpleNamespace(journal=Journal(tmp_path / "journal.db", clock.unix), clock=clock)
    centre = Supervisor(cast(Host, host), cast(Link, None), cast(Mail, None), cast(Heartbeats, None))
    centre.jobs[job_id] = cast(Job, SimpleNamespace(job_id=job_id))

    async def drop(_: Job, why: str) -> None:
        dropped.append(why)

    monkeypatch.setattr(centre, "_drop", drop)

    def prepare(fence: int) -> None:
        command = Prepare(job_id=job_id, fence=fence, step=f"prepare/{fence}", spec={}, store_token="t")
        host.journal.put_job(JobRecord(job_id=job_id, fence=fence, phase="preparing", prepare=command))

    async def after(seconds: float, *, set_by: float = 0.0) -> int:
        clock.boot += seconds
        clock.wall += seconds + set_by
        centre._expire()
        await asyncio.sleep(0)
        return len(dropped)

    async def scenario() -> None:
        prepare(1)
        assert await after(0) == 0
        assert await after(1, set_by=3600) == 0, "a clock that was set forward"
        assert await after(PREPARED_FOR_S - 1, set_by=-7200) == 0
        prepare(2)
        assert await after(2) == 0, "a newer one waits anew"
        assert await after(PREPARED_FOR_S + 1, set_by=-7200) == 1, "a clock that was set back"

    asyncio.run(scenario())
