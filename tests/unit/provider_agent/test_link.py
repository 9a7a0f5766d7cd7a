"""The link against a real WebSocket server: handshake, numbers, acknowledgements, reconnects."""

import asyncio
import json
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from nacl.public import PrivateKey
from websockets.asyncio.server import ServerConnection, serve

from everlease.chain.keys import Key
from everlease.chain.typed_data import Domain, NodeHello, node_hello_digest, recover
from everlease.wire.node import Challenge, HeldContainer, Hello, ToNode, Welcome
from provider_agent.clock import SystemClock
from provider_agent.errors import LinkDown
from provider_agent.identity import Identity
from provider_agent.journal import Journal
from provider_agent.link import Link, Session

DOMAIN = Domain(31337, "0x" + "e5" * 20)
IDENTITY = Identity(Key.of(b"\x07" * 32), "0x" + "aa" * 20, PrivateKey.generate())
Talk = Callable[[ServerConnection, Hello], Awaitable[None]]


class Ears:
    """A listener that remembers."""

    def __init__(self) -> None:
        self.sessions: list[str] = []
        self.heard: list[ToNode] = []

    def facts(self) -> dict[str, Any]:
        return {"cores": 2}

    def held(self) -> list[HeldContainer]:
        return []

    def admitted(self, challenge: Challenge, welcome: Welcome) -> None:
        self.sessions.append(welcome.session)

    def received(self, message: ToNode) -> None:
        self.heard.append(message)


class Server:
    """Each connection is greeted and then handed to the next talk; the last one repeats."""

    def __init__(self, *talks: Talk, domain: Domain = DOMAIN) -> None:
        self._talks, self._domain = list(talks), domain
        self.frames: list[list[dict[str, Any]]] = []
        self.connections = 0

    async def serve(self, socket: ServerConnection) -> None:
        self.connections += 1
        nonce = "0x" + "42" * 32
        terms = {"chain_id": self._domain.chain_id, "escrow": self._domain.contract}
        challenge = Challenge(nonce=nonce, **terms, fence_after=4, heartbeat_every=1)
        await socket.send(challenge.model_dump_json())
        hello = Hello.model_validate_json(await socket.recv())
        signed = NodeHello(nonce, hello.node, hello.provider, bytes(IDENTITY.sealing.public_key))
        assert recover(node_hello_digest(DOMAIN, signed), hello.signature) == IDENTITY.key.address
        number = len(self.frames)
        self.frames.append([])
        await socket.send(Welcome(session=str(number), confirmed={}, dropped=[]).model_dump_json())
        await self._talks[min(number, len(self._talks) - 1)](socket, hello)

    async def read(self, socket: ServerConnection) -> dict[str, Any]:
        frame: dict[str, Any] = json.loads(await socket.recv())
        self.frames[-1].append(frame)
        assert frame["seq"] == len(self.frames[-1])
        return frame


async def meet(server: Server, journal: Journal, work: Callable[[Link, Ears], Awaitable[None]]) -> Ears:
    """Run a link against a server until ``work`` is done."""
    ears = Ears()
    async with serve(server.serve, "127.0.0.1", 0) as listening:
        port = next(iter(listening.sockets)).getsockname()[1]
        link = Link(f"ws://127.0.0.1:{port}", IDENTITY, DOMAIN, journal, SystemClock())
        running = asyncio.create_task(link.run(ears))
        try:
            async with asyncio.timeout(20):
                await work(link, ears)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
    return ears


async def until(condition: Callable[[], Any]) -> None:
    while not condition():  # noqa: ASYNC110  (what is waited for lies in the journal or at the server)
        await asyncio.sleep(0.01)


@pytest.fixture
def journal(tmp_path: Path) -> Any:
    journal = Journal(tmp_path / "journal.db")
    yield journal
    journal.close()


def ack(number: int, of: int) -> str:
    return json.dumps({"type": "heartbeat_ack", "seq": number, "ack": of, "refused": []})


HEARTBEAT = {"type": "heartbeat", "jobs": []}
DRAIN = {"type": "drain", "reason": "x"}


def test_mail_is_kept_until_a_later_heartbeat_is_acknowledged(journal: Journal) -> None:
    async def talk(socket: ServerConnection, _: Hello) -> None:
        assert (await server.read(socket))["type"] == "drain"
        assert (await server.read(socket))["type"] == "heartbeat"
        await socket.send(ack(1, 2))
        await socket.wait_closed()

    async def work(link: Link, _: Ears) -> None:
        link.post("drain", DRAIN)
        await until(lambda: server.frames and server.frames[0])
        await asyncio.sleep(0.1)
        assert journal.outgoing(), "nothing is forgotten before the acknowledgement"
        await link.send(HEARTBEAT)
        await until(lambda: not journal.outgoing())

    server = Server(talk)
    asyncio.run(meet(server, journal, work))


def test_a_journal_that_takes_nothing_ends_neither_link_nor_session(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk: what arrived stays in the outbox and is sent once more in another session."""

    async def talk(socket: ServerConnection, _: Hello) -> None:
        assert (await server.read(socket))["type"] == "drain"
        for number in (1, 2):
            assert (await server.read(socket))["type"] == "heartbeat"
            await socket.send(ack(number, number + 1))
        await socket.wait_closed()

    def full(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    async def work(link: Link, ears: Ears) -> None:
        link.post("drain", DRAIN)
        await until(lambda: server.frames and server.frames[0])
        monkeypatch.setattr(journal, "acknowledged", full)
        for number in (1, 2):
            await link.send(HEARTBEAT)
            await until(lambda number=number: len(ears.heard) == number)
        assert journal.outgoing()
        assert link.connected

    server = Server(talk)
    assert asyncio.run(meet(server, journal, work)).sessions == ["0"]


def test_mail_is_sent_again_after_a_break_and_numbers_start_anew(journal: Journal) -> None:
    async def breaks(socket: ServerConnection, _: Hello) -> None:
        await server.read(socket)
        socket.transport.abort()

    async def listens(socket: ServerConnection, _: Hello) -> None:
        await server.read(socket)
        await socket.wait_closed()

    async def work(link: Link, ears: Ears) -> None:
        link.post("drain", DRAIN)
        await until(lambda: len(server.frames) == 2 and server.frames[1])

    server = Server(breaks, listens)
    ears = asyncio.run(meet(server, journal, work))
    assert [[frame["seq"] for frame in frames] for frames in server.frames] == [[1], [1]]
    assert ears.sessions == ["0", "1"]


def test_a_commit_waits_for_its_own_answer(journal: Journal) -> None:
    async def talk(socket: ServerConnection, _: Hello) -> None:
        await server.read(socket)
        await server.read(socket)
        await socket.send(ack(1, 2))
        await socket.wait_closed()

    async def work(link: Link, ears: Ears) -> None:
        link.post("commit:r", {"type": "token_request", "request": "r", "job_id": "0x" + "ab" * 32, "fence": 1})
        await until(lambda: server.frames and server.frames[0])
        await link.send(HEARTBEAT)
        await until(lambda: ears.heard)
        assert [item.key for item in journal.outgoing()] == ["commit:r"]

    server = Server(talk)
    asyncio.run(meet(server, journal, work))


def test_deliver_returns_once_it_arrived_over_two_sessions(journal: Journal) -> None:
    async def breaks(socket: ServerConnection, _: Hello) -> None:
        await server.read(socket)
        socket.transport.abort()

    async def acknowledges(socket: ServerConnection, _: Hello) -> None:
        await server.read(socket)
        await server.read(socket)
        await socket.send(ack(1, 2))
        await socket.wait_closed()

    async def work(link: Link, _: Ears) -> None:
        delivery = asyncio.create_task(link.deliver(DRAIN))
        await until(lambda: len(server.frames) == 2 and server.frames[1])
        assert not delivery.done()
        await link.send(HEARTBEAT)
        await delivery

    server = Server(breaks, acknowledges)
    asyncio.run(meet(server, journal, work))


def test_a_ping_is_answered_at_once(journal: Journal) -> None:
    async def talk(socket: ServerConnection, _: Hello) -> None:
        await socket.send(json.dumps({"type": "ping", "seq": 1}))
        await server.read(socket)
        await socket.wait_closed()

    async def work(_: Link, __: Ears) -> None:
        await until(lambda: server.frames and server.frames[0])

    server = Server(talk)
    asyncio.run(meet(server, journal, work))
    assert server.frames[0][0] == {"type": "pong", "ping": 1, "seq": 1}


@pytest.mark.parametrize("text", ['{"type": "ping", "seq": 2}', '{"type": "nonsense", "seq": 1}', "no json"])
def test_a_message_out_of_order_or_unknown_ends_the_session(journal: Journal, text: str) -> None:
    async def talk(socket: ServerConnection, _: Hello) -> None:
        await socket.send(text)
        await socket.wait_closed()

    async def work(_: Link, ears: Ears) -> None:
        await until(lambda: len(ears.sessions) == 2)

    server = Server(talk)
    ears = asyncio.run(meet(server, journal, work))
    assert ears.heard == []


def test_another_escrow_gets_no_signature(journal: Journal) -> None:
    async def talk(_: ServerConnection, __: Hello) -> None:
        raise AssertionError("the node was admitted")

    async def work(link: Link, ears: Ears) -> None:
        await until(lambda: server.connections >= 2)
        assert not link.connected
        with pytest.raises(LinkDown):
            await link.send(HEARTBEAT)

    server = Server(talk, domain=Domain(31337, "0x" + "66" * 20))
    assert asyncio.run(meet(server, journal, work)).sessions == []


class Closer(Server):
    """Ends each connection after the hello, with the next of these codes; the last one repeats. None: aborted."""

    def __init__(self, *codes: int | None) -> None:
        super().__init__()
        self.codes = list(codes)

    async def serve(self, socket: ServerConnection) -> None:
        code = self.codes[min(self.connections, len(self.codes) - 1)]
        self.connections += 1
        terms = {"chain_id": DOMAIN.chain_id, "escrow": DOMAIN.contract}
        challenge = Challenge(nonce="0x" + "42" * 32, **terms, fence_after=4, heartbeat_every=1)
        await socket.send(challenge.model_dump_json())
        await socket.recv()
        if code is None:
            socket.transport.abort()
        else:
            await socket.close(code, "busy")


async def waits(journal: Journal, monkeypatch: pytest.MonkeyPatch, server: Server, times: int) -> list[float]:
    """The longest that a link may sleep after each of so many ends of its connection, if chance wants it so."""
    slept: list[float] = []
    really = asyncio.sleep

    async def sleep(seconds: float) -> None:
        if 0.1 <= seconds < 20:  # 20: the server's own, until its next ping
            slept.append(seconds)
            seconds = 0.01
        await really(seconds)

    async def work(link: Link, _: Ears) -> None:
        while len(slept) < times:
            await really(0.01)

    monkeypatch.setattr("provider_agent.link.random.uniform", lambda low, high: high)
    monkeypatch.setattr("provider_agent.link.asyncio.sleep", sleep)
    await meet(server, journal, work)
    return slept[:times]


@pytest.mark.parametrize("code", [1013, 1012, 1001, None])
def test_a_marketplace_that_is_busy_is_asked_again_soon(
    journal: Journal, monkeypatch: pytest.MonkeyPatch, code: int | None
) -> None:
    found = asyncio.run(waits(journal, monkeypatch, Closer(code), 8))
    assert found == [0.2, 0.4, 0.8, 1.6, 2.0, 2.0, 2.0, 2.0]


def test_a_refusal_is_asked_about_less_and_less_until_it_is_none(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = asyncio.run(waits(journal, monkeypatch, Closer(*[4001] * 8, 1013), 10))
    assert found[4:] == [3.2, 6.4, 12.8, 15.0, 2.0, 2.0]


def test_a_message_that_comes_together_with_a_cancellation_does_not_swallow_it() -> None:
    class Socket:
        def __init__(self) -> None:
            self.message: asyncio.Future[str] = asyncio.get_running_loop().create_future()

        async def recv(self) -> str:
            return await self.message

    async def scene() -> None:
        socket = Socket()
        terms = {"chain_id": DOMAIN.chain_id, "escrow": DOMAIN.contract, "fence_after": 4, "heartbeat_every": 1}
        challenge, welcome = Challenge(nonce="0x" + "42" * 32, **terms), Welcome(session="0", confirmed={}, dropped=[])
        reading = asyncio.create_task(Session(socket, challenge, welcome).receive())  # type: ignore[arg-type]
        await asyncio.sleep(0)
        socket.message.set_result(ack(1, 1))
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading

    asyncio.run(scene())


def test_a_slow_marketplace_is_given_a_third_of_its_fencing_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("provider_agent.link.SILENCE_S", 0.01)

    class Socket:
        async def recv(self) -> str:
            await asyncio.sleep(0.2)
            return ack(1, 1)

    async def scene(fence_after: float) -> None:
        terms = {"chain_id": DOMAIN.chain_id, "escrow": DOMAIN.contract, "heartbeat_every": 1}
        challenge = Challenge(nonce="0x" + "42" * 32, fence_after=fence_after, **terms)
        session = Session(Socket(), challenge, Welcome(session="0", confirmed={}, dropped=[]))  # type: ignore[arg-type]
        await session.receive()

    asyncio.run(scene(30))
    with pytest.raises(LinkDown, match="said nothing"):
        asyncio.run(scene(0.03))
    monkeypatch.setattr("provider_agent.link.LONGEST_SILENCE_S", 0.05)
    with pytest.raises(LinkDown, match="said nothing"):
        asyncio.run(scene(1e12))
