"""From the first byte of a connection to an admitted node: challenge, hello, welcome.

Until then nobody knows who it is. So it gets little: a place that somebody else may take, one message of bounded size,
seconds, and a turn in a thread that is not the event loop's.
"""

import asyncio
import secrets
from contextlib import suppress

import structlog
from anyio import CapacityLimiter, to_thread
from starlette.websockets import WebSocket, WebSocketDisconnect

from everlease.db import nodes
from everlease.db.engine import DatabaseUnavailable
from everlease.supervision import Alive
from everlease.wire.base import Message
from everlease.wire.node import Challenge
from marketplace.gateway.admission import Admission, Registrar
from marketplace.gateway.door import Door, DoorLimits, Place, TooMany
from marketplace.gateway.frames import protocol_of
from marketplace.gateway.session import GONE, PROTOCOL, RESTART, NodeSession, SessionOver, receive_frame
from marketplace.parts import Parts

HELLO_TIMEOUT_S = 10.0
CHECKS_AT_ONCE = 2
"""Hellos of strangers that are checked at the same time; those from known networks have as many turns of their own."""
KNOWN_FOR_DAYS = 7
LOOK_EVERY_S = 30.0
_GONE = (WebSocketDisconnect, RuntimeError, OSError)
_log = structlog.get_logger("marketplace.gateway")


class NotReceived(Exception):
    """The connection was refused, or dropped for another, before anything was said; there is nobody to tell."""

    retryable = True


class Greeter:
    """Lets nodes in. Lives on the event loop."""

    def __init__(self, parts: Parts) -> None:
        settings = parts.settings
        self._parts = parts
        self.door = Door(
            DoorLimits(
                places=settings.greetings,
                reserved=settings.greetings_reserved,
                of_stranger=settings.greetings_of_stranger,
                of_known=settings.greetings_of_known,
                per_second=settings.knocks_per_second,
                burst=settings.knocks_burst,
            )
        )
        self._registrar = Registrar(parts)
        self._stranger_turns = CapacityLimiter(CHECKS_AT_ONCE)
        self._known_turns = CapacityLimiter(CHECKS_AT_ONCE)
        self._threads = CapacityLimiter(2 * CHECKS_AT_ONCE)

    async def keep_known(self, alive: Alive) -> None:
        """Learn from which networks staked nodes came of late, until cancelled."""
        while True:
            try:
                self.door.know(await to_thread.run_sync(self._known_networks))
            except DatabaseUnavailable as error:
                _log.warning("known networks not read", reason=str(error))
            alive()
            await asyncio.sleep(LOOK_EVERY_S)

    async def greet(self, socket: WebSocket) -> NodeSession:
        """Admit the node behind a socket. Raises SessionOver (tell it and close) or NotReceived (drop it)."""
        address = socket.client.host if socket.client else ""
        try:
            self.door.check(address)
        except TooMany:
            self._count("limited")
            with suppress(*_GONE):
                await socket.close()
            raise NotReceived from None
        place = self.door.enter(address, lambda: greeting.cancel())  # noqa: PLW0108  (it is made below)
        self._parts.metrics.greeting.set(len(self.door))
        greeting = asyncio.ensure_future(self._welcome(socket, place))
        try:
            admission = await greeting
        except asyncio.CancelledError:
            if not place.evicted or (task := asyncio.current_task()) is None or task.cancelling():
                raise
            self._count("evicted")
            protocol_of(socket).abort()
            raise NotReceived from None
        except SessionOver as refused:
            self._count("gone" if refused.code == GONE else "refused")
            raise
        finally:
            greeting.cancel()
            self._leave(place)
        self._count("admitted")
        _log.info(
            "node admitted",
            node=admission.node,
            provider=admission.provider,
            shunned_s=admission.welcome.resume_after_s,
        )
        return NodeSession(socket, admission.node, admission.provider, admission.session, admission.sealing_key)

    async def _welcome(self, socket: WebSocket, place: Place) -> Admission:
        nonce = "0x" + secrets.token_hex(32)
        settings, deployment = self._parts.settings, self._parts.deployment
        challenge = Challenge(
            nonce=nonce,
            chain_id=deployment.chain_id,
            escrow=deployment.escrow,
            fence_after=settings.fence_after,
            heartbeat_every=settings.heartbeat_every,
        )
        try:
            async with asyncio.timeout(HELLO_TIMEOUT_S):
                await _accept(socket)
                await _say(socket, challenge)
                text = await receive_frame(socket)
        except TimeoutError:
            raise SessionOver(PROTOCOL, "no hello came in time") from None
        try:
            async with self._known_turns if place.known else self._stranger_turns:
                # From here on it is not driven out any more: it may be in the database already.
                self._leave(place)
                admission = await to_thread.run_sync(
                    self._registrar.admit, text, nonce, place.network, limiter=self._threads
                )
        except DatabaseUnavailable as error:
            raise SessionOver(RESTART, "the database is away: try again") from error
        protocol_of(socket).admit()
        await _say(socket, admission.welcome)
        return admission

    def _leave(self, place: Place) -> None:
        self.door.leave(place)
        self._parts.metrics.greeting.set(len(self.door))

    def _count(self, outcome: str) -> None:
        self._parts.metrics.greetings.labels(outcome).inc()

    def _known_networks(self) -> frozenset[str]:
        with self._parts.db.transaction() as tx:
            return nodes.known_networks(tx, KNOWN_FOR_DAYS)


async def _accept(socket: WebSocket) -> None:
    try:
        await socket.accept()
    except _GONE as error:
        raise SessionOver(GONE, "the socket is gone") from error


async def _say(socket: WebSocket, message: Message) -> None:
    try:
        await socket.send_text(message.model_dump_json())
    except _GONE as error:
        raise SessionOver(GONE, "the socket is gone") from error
