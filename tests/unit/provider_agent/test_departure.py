"""A host owes a job nothing once the market has taken its goodbye, and not before."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from everlease.wire.commands import Prepare
from provider_agent import departure as module
from provider_agent.clock import SystemClock
from provider_agent.departure import Departure
from provider_agent.heartbeat import Heartbeats
from provider_agent.host import Folders, Host
from provider_agent.installation import leftovers
from provider_agent.journal import Journal
from provider_agent.link import Link
from provider_agent.mail import Mail
from provider_agent.records import JobRecord
from provider_agent.supervisor import Supervisor

JOB = "0x" + "ab" * 32


class Killed(BaseException):
    """What kill -9 is to the code that it ends."""


class Market:
    """Hears goodbyes, or nothing at all."""

    def __init__(self, *, hears: bool) -> None:
        self._hears = hears

    async def deliver(self, _: dict[str, Any]) -> None:
        if not self._hears:
            await asyncio.Event().wait()


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GOODBYE_S", 0.05)


def host_of(folder: Path, market: Market, reach: Callable[[str], None] = lambda _: None) -> Host:
    journal = Journal(folder / "journal.db")
    if journal.job(JOB) is None:
        prepare = Prepare(job_id=JOB, fence=1, step="prepare/1", spec={}, store_token="t")
        journal.put_job(JobRecord(job_id=JOB, fence=1, phase="running", prepare=prepare))
    crash = SimpleNamespace(reach=reach)
    parts: dict[str, Any] = {"journal": journal, "messenger": market, "crash": crash, "clock": SystemClock()}
    parts |= {"folders": Folders(folder), "deadline": lambda: 0.0, "engine": SimpleNamespace(jobs=set)}
    return cast(Host, SimpleNamespace(**parts))


def take_up(host: Host) -> Supervisor:
    centre = Supervisor(host, cast(Link, None), cast(Mail, None), cast(Heartbeats, None))
    centre.take_up()
    return centre


def leave(host: Host) -> None:
    """A departure of an agent that has just taken up its job."""

    async def scenario() -> None:
        await Departure(host, take_up(host).jobs, 0.0, "the host is shut down").run()

    asyncio.run(scenario())


def owed(folder: Path) -> bool:
    return JOB in leftovers.unfinished(folder / "journal.db")


@pytest.mark.parametrize("hears", [True, False])
def test_a_job_is_left_in_order_only_if_the_market_heard_so(tmp_path: Path, hears: bool) -> None:
    host = host_of(tmp_path, Market(hears=hears))
    leave(host)
    record = host.journal.job(JOB)
    assert record is not None
    assert (record.phase, record.leaving) == ("held", True)
    assert owed(tmp_path) is not hears


@pytest.mark.parametrize(("point", "left"), [("leave.frozen", False), ("leave.told", True)])
def test_an_agent_that_is_killed_on_its_way_out(tmp_path: Path, point: str, left: bool) -> None:
    def reach(at: str) -> None:
        if at == point:
            raise Killed

    with pytest.raises(Killed):
        leave(host_of(tmp_path, Market(hears=True), reach))
    assert owed(tmp_path) is not left


def test_a_host_that_came_back_says_goodbye_again(tmp_path: Path) -> None:
    leave(host_of(tmp_path, Market(hears=True)))
    assert not owed(tmp_path)
    take_up(host_of(tmp_path, Market(hears=True)))
    assert owed(tmp_path)
    leave(host_of(tmp_path, Market(hears=False)))
    assert owed(tmp_path)
