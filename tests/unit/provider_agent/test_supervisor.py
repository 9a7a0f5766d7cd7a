"""A Docker that hangs, and anybody's calls for bids, do not keep heartbeats back."""

import asyncio
from pathlib import Path
from threading import Event
from types import SimpleNamespace
from typing import Any, cast

import pytest

from everlease.wire.node import CallForBids
from provider_agent import supervisor as module
from provider_agent.bidding import Declined
from provider_agent.heartbeat import Heartbeats
from provider_agent.host import Host
from provider_agent.journal import Journal
from provider_agent.link import Link
from provider_agent.mail import Mail
from provider_agent.supervisor import MOST_CALLS, Supervisor


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
    host = SimpleNamespace(journal=Journal(tmp_path / "journal.db"), free_disk=lambda: 1)
    centre = Supervisor(cast(Host, host), cast(Link, wire), cast(Mail, None), cast(Heartbeats, wire))
    call = cast(CallForBids, SimpleNamespace(auction_id=1))

    async def scenario() -> None:
        calls = [asyncio.create_task(centre._bid(call)) for _ in range(40)]
        try:
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
