"""The one connection of an agent: outward, to the gateway; opened again with a longer, jittered wait when it breaks.

What must not be lost waits in the journal's outbox. The gateway handles a session's messages in order, so the answer
to heartbeat N acknowledges every message numbered below N; a commit waits for its own answer. Repeats are harmless:
results are known by (job, step), commits by their manifest, logs by their offset.
"""

import asyncio
import json
import logging
import random
import sqlite3
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from pydantic import ValidationError
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException
from websockets.frames import CloseCode

from everlease.chain.typed_data import Domain
from everlease.wire.node import (
    MAX_FRAME_BYTES,
    Challenge,
    HeartbeatAck,
    HeldContainer,
    Hello,
    Ping,
    ToNode,
    Welcome,
    from_node,
    to_node,
)
from provider_agent.clock import Clock
from provider_agent.errors import HandshakeRefused, LinkDown
from provider_agent.identity import Identity
from provider_agent.journal import Journal

log = logging.getLogger(__name__)
SILENCE_S, LONGEST_SILENCE_S = 6.0, 60.0
"""At least and at most; between them it is a third of the marketplace's `fence_after`."""
FAILURES = (LinkDown, HandshakeRefused, WebSocketException, OSError, TimeoutError, ValidationError, sqlite3.Error)
"""What a connection ends by, and the next one begins after."""
SENT_AWAY_S = 2.0
GREETING_S = 10.0
DIAL_S = 3.0
FIRST_WAIT_S, LONGEST_WAIT_S, REFUSED_WAIT_S = 0.2, 2.0, 15.0
"""Seconds between tries. A marketplace that comes back judges silence after 3.5 s: a node with jobs must be quicker."""
VERSION = "everlease-agent/0.1"


class Listener(Protocol):
    """What the link tells the supervisor. Calls come one after another, on the event loop."""

    def facts(self) -> dict[str, Any]:
        """The host's facts for Hello."""
        ...

    def held(self) -> list[HeldContainer]:
        """The containers of this node, for Hello."""
        ...

    def admitted(self, challenge: Challenge, welcome: Welcome) -> None:
        """A new session began."""
        ...

    def received(self, message: ToNode) -> None:
        """A message came; must not block."""
        ...


class Session:
    """One admitted connection: numbers in both directions and what waits for an acknowledgement."""

    def __init__(self, socket: ClientConnection, challenge: Challenge, welcome: Welcome) -> None:
        self.challenge, self.welcome = challenge, welcome
        self._socket = socket
        self._sent = self._got = 0
        self._order = asyncio.Lock()
        self._waiting: dict[int, Callable[[], None]] = {}

    async def send(
        self,
        body: dict[str, Any],
        acknowledged: Callable[[], None] | None = None,
        numbered: Callable[[int], None] | None = None,
    ) -> int:
        """Number and send a message. `numbered` learns its number before it leaves; `acknowledged` is called once the
        gateway has surely handled it. Raises LinkDown.
        """
        async with self._order:
            number = self._sent + 1
            if numbered is not None:
                numbered(number)
            frame = from_node.validate_python({**body, "seq": number}).model_dump_json()
            if acknowledged is not None:
                self._waiting[number] = acknowledged
            try:
                await self._socket.send(frame)
            except (WebSocketException, OSError) as error:
                self._waiting.pop(number, None)
                raise LinkDown("the connection to the marketplace broke") from error
            self._sent = number
            return number

    async def receive(self) -> ToNode:
        """The next message; raises LinkDown after a silence, an end, or a message out of order."""
        silence = min(max(SILENCE_S, self.challenge.fence_after / 3), LONGEST_SILENCE_S)
        try:
            async with asyncio.timeout(silence):
                text = await self._socket.recv()
            message = to_node.validate_json(text)
        except TimeoutError as error:
            raise LinkDown(f"the marketplace said nothing for {silence:.0f} s") from error
        except (WebSocketException, OSError) as error:
            raise LinkDown("the connection to the marketplace ended") from error
        except ValidationError as error:
            raise LinkDown("the marketplace sent a message that this agent does not know") from error
        if message.seq != self._got + 1:
            raise LinkDown(f"message {message.seq} came where {self._got + 1} was expected")
        self._got = message.seq
        return message

    def handled_below(self, number: int) -> None:
        """Everything sent before this number has arrived."""
        for sent in [sent for sent in self._waiting if sent < number]:
            self._waiting.pop(sent)()


def _is_refusal(closed: ConnectionClosed) -> bool:
    """Whether the marketplace will say the same again soon. It is busy or restarts, or the line broke, otherwise."""
    return closed.rcvd is not None and (closed.rcvd.code >= 4000 or closed.rcvd.code == CloseCode.MESSAGE_TOO_BIG)


class Link:
    """Keeps a session open. `run` lasts until it is cancelled; `send` and `deliver` may be called at any time."""

    def __init__(self, url: str, identity: Identity, deployment: Domain, journal: Journal, clock: Clock) -> None:
        self._url, self._identity, self._journal, self._clock = url, identity, journal, clock
        self._deployment = deployment
        self._session: Session | None = None
        self._changed = asyncio.Condition()
        self._mail = asyncio.Event()

    @property
    def connected(self) -> bool:
        """Whether a session is open."""
        return self._session is not None

    def post(self, key: str, body: dict[str, Any]) -> None:
        """Send a message for certain: it is in the journal when this returns."""
        self._journal.post(key, body)
        self._mail.set()

    def wake(self) -> None:
        """Look into the outbox: the journal put something there by itself."""
        self._mail.set()

    async def send(self, body: dict[str, Any], numbered: Callable[[int], None] | None = None) -> int:
        """Send now or never; the message's number. Raises LinkDown."""
        if self._session is None:
            raise LinkDown("there is no connection to the marketplace")
        return await self._session.send(body, numbered=numbered)

    async def reassert(self, commit: str) -> None:
        """Send a commit again that was answered before: a new session learns whether our head still is the head."""
        await self.send(json.loads(commit))

    async def deliver(self, body: dict[str, Any]) -> None:
        """Send until acknowledged, over as many sessions as it takes; for what needs no journal."""
        while True:
            session = await self._next_session()
            arrived = asyncio.get_running_loop().create_future()
            try:
                await session.send(body, lambda arrived=arrived: arrived.done() or arrived.set_result(None))  # type: ignore[misc]
                while not arrived.done() and self._session is session:
                    await asyncio.wait([arrived], timeout=0.5)
                if arrived.done():
                    return
            except LinkDown:
                await asyncio.sleep(FIRST_WAIT_S)

    async def _next_session(self) -> Session:
        async with self._changed:
            await self._changed.wait_for(lambda: self._session is not None)
            assert self._session is not None
            return self._session

    async def run(self, listener: Listener) -> None:
        """Connect, serve, and connect again, for ever."""
        wait, longest = FIRST_WAIT_S, LONGEST_WAIT_S
        while True:
            pause = 0.0
            try:
                pause = await self._serve_once(listener)
                wait = FIRST_WAIT_S
            except FAILURES as error:
                if self._session is not None:
                    wait = FIRST_WAIT_S
                log.warning("link to the marketplace: %s; trying again", error)
                longest = REFUSED_WAIT_S if isinstance(error, HandshakeRefused) else LONGEST_WAIT_S
                wait = min(wait, longest)
            finally:
                await self._become(None)
            await asyncio.sleep(max(pause, wait * random.uniform(0.5, 1.0)))  # noqa: S311  (jitter, no secret)
            wait = min(wait * 2, longest)

    async def _serve_once(self, listener: Listener) -> float:
        """One connection from dial to end. Returns how long to stay away: what a gateway asked that closed at once."""
        async with connect(
            self._url, max_size=MAX_FRAME_BYTES, open_timeout=DIAL_S, close_timeout=1, ping_interval=None, proxy=None
        ) as socket:
            session = await self._greet(socket, listener)
            began = self._clock.boottime()
            listener.admitted(session.challenge, session.welcome)
            await self._become(session)
            sender = asyncio.create_task(self._send_mail(session))
            reader = asyncio.create_task(self._read(session, listener))
            try:
                await asyncio.wait([sender, reader], return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in (sender, reader):
                    task.cancel()
                ends = await asyncio.gather(sender, reader, return_exceptions=True)
                socket.transport.abort()
            if session.welcome.resume_after_s > 0 and self._clock.boottime() - began < SENT_AWAY_S:
                return session.welcome.resume_after_s
            for end in ends:
                if isinstance(end, Exception):
                    raise end
        return 0.0

    async def _greet(self, socket: ClientConnection, listener: Listener) -> Session:
        """Challenge, hello, welcome. Raises HandshakeRefused, and LinkDown where the marketplace only can't now."""
        async with asyncio.timeout(GREETING_S):
            challenge = Challenge.model_validate_json(await socket.recv())
        if Domain(challenge.chain_id, challenge.escrow.lower()) != self._deployment:
            raise HandshakeRefused("the marketplace serves another chain or escrow than this agent's deployments file")
        hello = Hello(
            node=self._identity.key.address,
            provider=self._identity.provider,
            nonce=challenge.nonce,
            sealing_key=self._identity.sealing_public,
            version=VERSION,
            facts=listener.facts(),
            containers=listener.held(),
            signature=self._identity.sign_hello(challenge),
        )
        await socket.send(hello.model_dump_json())
        try:
            async with asyncio.timeout(GREETING_S):
                welcome = Welcome.model_validate_json(await socket.recv())
        except ConnectionClosed as error:
            told = f"the marketplace did not admit this node ({str(error)[:200]})"
            raise (HandshakeRefused if _is_refusal(error) else LinkDown)(told) from error
        except ValidationError as error:
            raise HandshakeRefused(f"the marketplace welcomed this node strangely ({str(error)[:200]})") from error
        return Session(socket, challenge, welcome)

    async def _become(self, session: Session | None) -> None:
        async with self._changed:
            self._session = session
            self._changed.notify_all()

    async def _read(self, session: Session, listener: Listener) -> None:
        while True:
            message = await session.receive()
            if isinstance(message, HeartbeatAck):
                session.handled_below(message.ack)
            elif isinstance(message, Ping):
                await session.send({"type": "pong", "ping": message.seq})
            listener.received(message)

    async def _send_mail(self, session: Session) -> None:
        """Everything in the outbox, oldest first, then whatever comes."""
        place = 0
        while True:
            self._mail.clear()
            for item in self._journal.outgoing(place):
                place = item.id
                done = None if item.key.startswith("commit:") else partial(self.forget, item.key)
                await session.send(item.body, done)
            await self._mail.wait()

    def forget(self, key: str) -> None:
        """A message has arrived. Where that can't be written down it stays and is sent once more: no harm."""
        try:
            self._journal.acknowledged([key])
        except sqlite3.Error as error:
            log.warning("message %s arrived, which can't be written down: %s", key, error)
