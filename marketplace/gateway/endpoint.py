"""The WebSocket /v1/node: challenge, hello, welcome; then each message to the part that knows it.

A session's messages are handled in the order they come, so the answer to heartbeat N tells the node that everything
before it is safe. Only commits (they wait for their own answer) and bids (they may ask the chain) run beside.
"""

import asyncio
import secrets
import time
from collections import Counter
from contextlib import suppress

import structlog
from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter
from pydantic import ValidationError
from starlette.websockets import WebSocket

from everlease.db import nodes
from everlease.db.engine import DatabaseUnavailable
from everlease.wire.node import Challenge, Hello, from_node
from marketplace.gateway.admission import admit
from marketplace.gateway.dispatch import Dispatcher
from marketplace.gateway.hub import Hub
from marketplace.gateway.session import (
    PROTOCOL,
    RESTART,
    SLOW,
    NodeSession,
    SessionOver,
    close_socket,
    receive_frame,
)
from marketplace.parts import Parts

HELLO_TIMEOUT_S = 10.0
MAX_GREETINGS, MAX_GREETINGS_OF_ONE = 256, 64
BEAT_THREADS = 4
IDLE_S = 30.0
"""A connection over which nothing comes is cut: the node's side of it may be gone without a word."""
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
        self.hub = Hub(parts)
        self._beat_threads = CapacityLimiter(BEAT_THREADS)
        self._greeting: Counter[str] = Counter()
        self._closing = False

    def close(self) -> None:
        """Send every node away and take no more."""
        self._closing = True
        self.hub.end_all()

    async def serve(self, socket: WebSocket) -> None:
        """One connection from its first byte to its last."""
        await socket.accept()
        try:
            session = await self._greet(socket)
        except SessionOver as refused:
            _log.info("node not admitted", reason=refused.reason)
            await close_socket(socket, refused.code, refused.reason)
            return
        over = await self._run(session)
        await close_socket(socket, over.code, over.reason)
        _log.info("node left", node=session.node, code=over.code, reason=over.reason)
        if over.sent_away or self._closing:
            # Its silence counts from its last heartbeat, not as a closed socket.
            return
        with suppress(DatabaseUnavailable):
            await to_thread.run_sync(self._note_gone, session)

    async def _greet(self, socket: WebSocket) -> NodeSession:
        caller = socket.client.host if socket.client else ""
        crowded = self._greeting.total() >= MAX_GREETINGS or self._greeting[caller] >= MAX_GREETINGS_OF_ONE
        if self._closing or crowded:
            raise SessionOver(RESTART if self._closing else SLOW, "come back later")
        self._greeting[caller] += 1
        try:
            nonce = "0x" + secrets.token_hex(32)
            settings, deployment = self._parts.settings, self._parts.deployment
            challenge = Challenge(
                nonce=nonce,
                chain_id=deployment.chain_id,
                escrow=deployment.escrow,
                fence_after=settings.fence_after,
                heartbeat_every=settings.heartbeat_every,
            )
            await socket.send_text(challenge.model_dump_json())
            async with asyncio.timeout(HELLO_TIMEOUT_S):
                hello = Hello.model_validate_json(await receive_frame(socket))
            admission = await to_thread.run_sync(admit, self._parts, hello, nonce)
            await socket.send_text(admission.welcome.model_dump_json())
        except TimeoutError:
            raise SessionOver(PROTOCOL, "no hello came in time") from None
        except ValidationError as error:
            raise SessionOver(PROTOCOL, f"the hello is malformed: {_first(error)}") from error
        except DatabaseUnavailable as error:
            raise SessionOver(RESTART, "the database is away: try again") from error
        finally:
            self._greeting[caller] -= 1
            if not self._greeting[caller]:
                del self._greeting[caller]
        shunned_s = admission.welcome.resume_after_s
        _log.info("node admitted", node=admission.node, provider=admission.provider, shunned_s=shunned_s)
        return NodeSession(socket, admission.node, admission.provider, admission.session, hello.sealing_key)

    async def _run(self, session: NodeSession) -> SessionOver:
        """Serve until the socket, the node or the hub ends it; returns why."""
        dispatcher = Dispatcher(self._parts, session, self._beat_threads, self.hub.catch_up)
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
                message = from_node.validate_json(text)
            except ValidationError as error:
                raise SessionOver(PROTOCOL, f"a message is malformed: {_first(error)}") from error
            session.check_number(message.seq)
            if (delay := session.pace.delay(len(text), time.monotonic())) > 0:
                await asyncio.sleep(delay)
            self._parts.metrics.messages.labels(message.type).inc()
            try:
                await dispatcher.handle(message)
            except DatabaseUnavailable as error:
                # Not closing would let the next heartbeat's answer acknowledge a message that was lost.
                raise SessionOver(RESTART, "the database is away: send it again") from error

    def _note_gone(self, session: NodeSession) -> None:
        with self._parts.db.transaction() as tx:
            nodes.gone(tx, session.node, session.id)


def _first(error: ValidationError) -> str:
    item = error.errors(include_url=False, include_input=False)[0]
    return f"{'.'.join(str(part) for part in item['loc'])}: {item['msg']}"
