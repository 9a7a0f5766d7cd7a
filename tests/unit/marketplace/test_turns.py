"""What asks the block store or the chain may hang: other nodes' words and heartbeats don't wait for it."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import MagicMock

import pytest
from starlette.websockets import WebSocket

from everlease.chain.errors import RpcUnavailable
from everlease.chain.typed_data import Domain
from everlease.domain.terms import Bid
from everlease.wire.node import BidMessage, CommitCheckpoint, Decline, Heartbeat, LogChunk
from everlease.wire.terms import BidModel, SignedBid
from marketplace.gateway import bidding, commits, heartbeats, reports
from marketplace.gateway.dispatch import Dispatcher, Threads
from marketplace.gateway.heartbeats import BeatOutcome
from marketplace.gateway.session import NodeSession
from marketplace.parts import Parts

NODE, PROVIDER, JOB = "0x" + "01" * 20, "0x" + "02" * 20, "0x" + "ab" * 32
CLOSES = 2_000_000_000
BID = Bid(PROVIDER, NODE, JOB, 1, 10, 100, CLOSES, 7)


class StuckChain:
    """A chain whose answers wait for ``go_on``; with ``away`` there are none."""

    def __init__(self) -> None:
        self.go_on, self.away, self.asked = threading.Event(), False, 0

    def code(self, address: str) -> bytes:
        self.asked += 1
        if self.away:
            raise RpcUnavailable("none here")
        self.go_on.wait(20)
        return b""


class Gateway:
    """Dispatchers that share threads, without a database behind them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.chain, self.threads = StuckChain(), Threads()
        self.kept: list[int] = []
        self.parts = SimpleNamespace(
            chain=self.chain,
            db=SimpleNamespace(transaction=MagicMock()),
            deployment=SimpleNamespace(escrow_domain=Domain(31337, "0x" + "0e" * 20)),
            settings=SimpleNamespace(heartbeat_every=1.0),
            clock=lambda: CLOSES - 600.0,
        )
        monkeypatch.setattr(bidding.auctions, "open_auctions", lambda tx, number: [auction(number)])
        monkeypatch.setattr(bidding.auctions, "add_bid", lambda tx, row, *_: self.kept.append(row.id))
        monkeypatch.setattr(bidding.auctions, "add_decline", lambda tx, row, *_: self.kept.append(-row.id))
        monkeypatch.setattr(bidding.queries, "node_authority", lambda *_: None)
        monkeypatch.setattr(bidding.queries, "free_stakes", lambda tx, providers: dict.fromkeys(providers, 1000))
        monkeypatch.setattr(reports, "take_log", lambda *_: None)
        monkeypatch.setattr(heartbeats, "take_heartbeat", lambda *_: BeatOutcome(replaced=False))

    def node(self, auctions: int = 0) -> tuple[Dispatcher, NodeSession]:
        session = NodeSession(cast(WebSocket, None), NODE, PROVIDER, "session", "")
        session.asked_auctions.update(range(1, auctions + 1))
        return Dispatcher(cast(Parts, self.parts), session, self.threads, lambda _: None), session


def auction(number: int) -> Any:
    row = SimpleNamespace(id=number, epoch=1, excluded={}, bids_until=SimpleNamespace(timestamp=lambda: CLOSES))
    job = SimpleNamespace(id=JOB, order={"max_rate_per_hour": 100, "min_collateral": 1})
    return SimpleNamespace(auction=row, job=job)


def bad_bid(number: int) -> BidMessage:
    signed = SignedBid(bid=BidModel.from_domain(BID), signature="0x" + "11" * 65)
    return BidMessage(seq=1, auction_id=number, signed=signed, missing_bytes=0)


def answers(session: NodeSession) -> list[Any]:
    return [session._waiting.get_nowait() for _ in range(session._waiting.qsize())]


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def heard_within(seconds: float, dispatcher: Dispatcher, session: NodeSession) -> bool:
    """Whether a log chunk and a heartbeat of a node are answered in time."""
    try:
        async with asyncio.timeout(seconds):
            await dispatcher.handle(LogChunk(seq=1, job_id=JOB, fence=1, stream="stdout", offset=0, text="x"))
            await dispatcher.handle(Heartbeat(seq=2, jobs=[]))
    except TimeoutError:
        return False
    return [message.type for message in answers(session)] == ["heartbeat_ack"]


@contextmanager
def released(event: threading.Event) -> Iterator[None]:
    try:
        yield
    finally:
        event.set()


def test_bids_that_nobody_signed_hold_up_no_other_node(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene() -> None:
        gateway = Gateway(monkeypatch)
        with released(gateway.chain.go_on):
            (flood, _), honest = gateway.node(20), gateway.node()
            for number in range(1, 21):
                await flood.handle(bad_bid(number))
            await until(lambda: gateway.chain.asked)
            await asyncio.sleep(0.2)
            assert await heard_within(1, *honest)
            assert gateway.chain.asked == 1, "one node asks the chain one thing at a time"
            flood.cancel()

    asyncio.run(scene())


def test_a_session_answers_an_auction_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene() -> None:
        gateway = Gateway(monkeypatch)
        with released(gateway.chain.go_on):
            node, session = gateway.node(1)
            for _ in range(5):
                await node.handle(bad_bid(1))
            await node.handle(Decline(seq=9, auction_id=1, reason="no"))
            await until(lambda: gateway.chain.asked)
            assert [message.type for message in answers(session)] == ["refusal"] * 4
            gateway.chain.go_on.set()
            await until(lambda: gateway.kept)
            assert (gateway.chain.asked, gateway.kept) == (1, [-1])

    asyncio.run(scene())


def test_a_bid_may_be_said_again_where_the_chain_was_away(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene() -> None:
        gateway = Gateway(monkeypatch)
        gateway.chain.away = True
        node, session = gateway.node(1)
        for times in (1, 2):
            await node.handle(bad_bid(1))
            await until(session._waiting.qsize)
            assert "could not check" in answers(session)[0].reason
            assert gateway.chain.asked == times
        assert gateway.kept == []

    asyncio.run(scene())


def test_a_block_store_that_hangs_holds_up_commits_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    go_on, waiting = threading.Event(), []

    def hangs(*_: Any) -> None:
        waiting.append(1)
        go_on.wait(20)

    monkeypatch.setattr(commits, "take_commit", hangs)

    async def scene() -> None:
        gateway = Gateway(monkeypatch)
        with released(go_on):
            queues = []
            for _ in range(16):
                node, _session = gateway.node()
                await node.handle(CommitCheckpoint.model_construct(type="commit_checkpoint"))
                queues.append(asyncio.create_task(node.commit_queue()))
            await until(lambda: len(waiting) >= 8)
            await asyncio.sleep(0.2)
            heard = await heard_within(1, *gateway.node())
            for queue in queues:
                queue.cancel()
            go_on.set()
            await asyncio.gather(*queues, return_exceptions=True)
            assert heard

    asyncio.run(scene())


def test_a_remote_store_has_ten_seconds_to_answer() -> None:
    from marketplace.services import store
    from tests.unit.marketplace.test_small_parts import settings

    gate = store.StoreGate(settings(store="http://127.0.0.1:1"))
    assert gate._remote is not None
    assert gate._remote._client.timeout.read == 10
    gate.close()
