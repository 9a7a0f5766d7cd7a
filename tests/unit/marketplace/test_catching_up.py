"""A node that says much can't make the gateway look for what waits for it again and again."""

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest
from anyio import CapacityLimiter
from starlette.websockets import WebSocket

from everlease.wire.node import FactsMessage
from marketplace.gateway import reports
from marketplace.gateway.dispatch import Dispatcher, Threads
from marketplace.gateway.hub import Hub
from marketplace.gateway.session import NodeSession
from marketplace.parts import Parts

PARTS = cast(Parts, SimpleNamespace(followers=SimpleNamespace(wake=None)))


def session() -> NodeSession:
    return NodeSession(cast(WebSocket, None), "0x" + "01" * 20, "0x" + "02" * 20, "session", "")


def test_many_wishes_while_a_node_is_caught_up_with_lead_to_one_more(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene() -> None:
        hub, node, go_on = Hub(PARTS, CapacityLimiter(1)), session(), asyncio.Event()
        looks: list[str] = []

        async def send_commands(of: NodeSession) -> None:
            looks.append(of.node)
            await go_on.wait()

        async def nothing(*_: Any) -> None: ...

        monkeypatch.setattr(hub, "_send_commands", send_commands)
        monkeypatch.setattr(hub, "_send_receipts", nothing)
        monkeypatch.setattr(hub, "_call_for_bids", nothing)
        for _ in range(50):
            hub.catch_up(node)
            await asyncio.sleep(0)
        assert len(looks) == 1
        go_on.set()
        await asyncio.sleep(0.05)
        assert len(looks) == 2
        hub.catch_up(node)
        await asyncio.sleep(0.05)
        assert len(looks) == 3, "and later ones are heard"

    asyncio.run(scene())


@pytest.mark.parametrize("news", [True, False])
def test_facts_that_are_no_news_lead_to_nothing(monkeypatch: pytest.MonkeyPatch, news: bool) -> None:
    monkeypatch.setattr(reports, "take_facts", lambda *_: news)

    async def scene() -> None:
        caught_up: list[NodeSession] = []
        node = session()
        await Dispatcher(PARTS, node, Threads(), caught_up.append).handle(FactsMessage(seq=1, facts={}))
        assert caught_up == [node] * news

    asyncio.run(scene())
