"""The WebSocket /v1/node: challenge, hello, welcome; then each message to the part that knows it.

A session's messages are handled in the order they come, so the answer to heartbeat N tells the node that everything
before it is safe. Only commits (they wait for their own answer) and bids (they may ask the chain) run beside.
"""

import asyncio
import time
from contextlib import suppress

import structlog
from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter
from pydantic import ValidationError
from starlette.websockets import WebSocket

from everlease.db import awards, gateways, nodes
from everlease.db.engine import DatabaseUnavailable
from everlease.wire.node import FromNode, from_node
from marketplace.gateway.admission import first_problem
from marketplace.gateway.dispatch import Dispatcher, Threads
from marketplace.gateway.greeting import LOOK_EVERY_S, Greeter, NotReceived
from marketplace.gateway.hub import Hub
from marketplace.gateway.session import GONE, PROTOCOL, RESTART, TOO_LARGE, NodeSession, SessionOver, close_socket
from marketplace.parts import Parts

IDLE_S = 30.0
"""A connection over which nothing comes is cut: the node's side of it may be gone without a word."""
LIGHT_CHARACTERS = 128 * 1024
"""A longer message is read in a thread, one at a time, so that heartbeats come between. An agent's output isn't."""
OTHERS_CHARACTERS = 4 * 1024
"""The same for nodes that never had a job: theirs wait for each other only, and have LIGHT_CHARACTERS at most."""
_log = structlog.get_logger("marketplace.gateway")

router = APIRouter()


@router.websocket("/v1/node")
async def node_socket(socket: WebSocket) -> None:
    """The node ↔ gateway protocol of everlease.wire.node."""
    gateway: Gateway = socket.app.state.gateway
    await gateway.serve(socket)


class Gateway:
    """Serves nodes until ``close``; one per process."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._threads = Threads()
        self.hub = Hub(parts, self._threads.work)
        self._greeter = Greeter(parts)
        self._heavy, self._others = CapacityLimiter(1), CapacityLimiter(1)
        self._closing = False

    def start(self) -> None:
        """Begin what runs beside the connections."""
        self.hub.start()
        self._parts.tasks.start(
            "known networks", self._greeter.keep_known, silent_at_most_s=4 * LOOK_EVERY_S, vital=False
        )

    def close(self) -> None:
        """Send every node away and take no more."""
        self._closing = True
        self.hub.end_all()
        self._greeter.door.clear()

    async def serve(self, socket: WebSocket) -> None:
        """One connection from its first byte to its last."""
        if self._closing:
            await close_socket(socket, RESTART, "the marketplace restarts")
            return
        try:
            session = await self._greeter.greet(socket)
        except NotReceived:
            return
        except SessionOver as refused:
            (_log.debug if refused.code == GONE else _log.info)("node not admitted", reason=refused.reason)
            await close_socket(socket, refused.code, refused.reason)
            return
        over = await self._run(session)
        await close_socket(socket, over.code, over.reason)
        _log.info("node left", node=session.node, code=over.code, reason=over.reason)
        # One that we sent away did not close its socket: it has as long to come back as one that falls silent.
        note = self._note_severed if over.sent_away or self._closing else self._note_gone
        with suppress(DatabaseUnavailable):
            await to_thread.run_sync(note, session, limiter=self._threads.work)

    async def _run(self, session: NodeSession) -> SessionOver:
        """Serve until the socket, the node or the hub ends it; returns why."""
        dispatcher = Dispatcher(self._parts, session, self._threads, self.hub.catch_up)
        self.hub.add(session)
        tasks = [
            asyncio.create_task(work)
            for work in (self._read(session, dispatcher), session.write(), dispatcher.commit_queue())
        ]
        ender = asyncio.create_task(session.ended())
        try:
            await asyncio.wait([*tasks, ender], return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.hub.remove(session)
            dispatcher.cancel()
            for task in (*tasks, ender):
                task.cancel()
            ends = await asyncio.gather(*tasks, ender, return_exceptions=True)
        for end in (ends[-1], *ends):
            if isinstance(end, SessionOver):
                return end
        for end in ends:
            if isinstance(end, Exception):
                _log.error("serving a node failed", node=session.node, exc_info=end)
        return SessionOver(RESTART, "the gateway ended this connection")

    async def _read(self, session: NodeSession, dispatcher: Dispatcher) -> None:
        while True:
            try:
                async with asyncio.timeout(IDLE_S):
                    text = await session.receive()
            except TimeoutError:
                raise SessionOver(PROTOCOL, f"nothing came for {IDLE_S:.0f} s") from None
            try:
                await self._wait_for_pace(session, len(text))
            except DatabaseUnavailable as error:
                raise SessionOver(RESTART, "the database is away: send it again") from error
            message = await self._parse(session, text)
            session.check_number(message.seq)
            self._parts.metrics.messages.labels(message.type).inc()
            try:
                await dispatcher.handle(message)
            except DatabaseUnavailable as error:
                # Not closing would let the next heartbeat's answer acknowledge a message that was lost.
                raise SessionOver(RESTART, "the database is away: send it again") from error

    async def _wait_for_pace(self, session: NodeSession, size: int) -> None:
        delay = session.pace.delay(size, time.monotonic())
        unsure = not session.proven and (delay > 0 or size > OTHERS_CHARACTERS)
        if unsure and await to_thread.run_sync(self._had_a_job, session, limiter=self._threads.work):
            session.prove()
        elif delay > 0:
            await asyncio.sleep(delay)

    async def _parse(self, session: NodeSession, text: str) -> FromNode:
        if not session.proven and len(text) > LIGHT_CHARACTERS:
            raise SessionOver(TOO_LARGE, f"a node that never had a job says at most {LIGHT_CHARACTERS} at once")
        try:
            if len(text) <= (LIGHT_CHARACTERS if session.proven else OTHERS_CHARACTERS):
                return from_node.validate_json(text)
            limiter = self._heavy if session.proven else self._others
            return await to_thread.run_sync(from_node.validate_json, text, limiter=limiter)
        except ValidationError as error:
            raise SessionOver(PROTOCOL, f"a message is malformed: {first_problem(error)}") from error

    def _had_a_job(self, session: NodeSession) -> bool:
        with self._parts.db.transaction() as tx:
            return awards.ever_given(tx, session.node)

    def _note_severed(self, session: NodeSession) -> None:
        with self._parts.db.transaction() as tx:
            gateways.sever(tx, session.id)

    def _note_gone(self, session: NodeSession) -> None:
        with self._parts.db.transaction() as tx:
            nodes.gone(tx, session.node, session.id)
