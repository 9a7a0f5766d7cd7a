"""From the first byte of a connection to an admitted node: challenge, hello, welcome.

Until then nobody knows who it is. So it gets little: a place that somebody else may take, one message of bounded size,
seconds, and a turn in a thread that is not the event loop's.
"""

import asyncio
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

import structlog
from anyio import CapacityLimiter, WouldBlock, to_thread
from starlette.websockets import WebSocket, WebSocketDisconnect

from everlease.db import nodes
from everlease.db.engine import DatabaseUnavailable
from everlease.supervision import Alive
from everlease.wire.base import Message
from everlease.wire.node import Challenge
from marketplace.gateway import admission
from marketplace.gateway.admission import Admission
from marketplace.gateway.door import Door, DoorLimits, Place, TooMany
from marketplace.gateway.frames import protocol_of
from marketplace.gateway.session import GONE, PROTOCOL, RESTART, SLOW, NodeSession, SessionOver, receive_frame
from marketplace.networks import Bucket
from marketplace.parts import Parts
from marketplace.services.keys import OtherMasterKey

HELLO_TIMEOUT_S = 10.0
STRANGERS_AT_ONCE, KNOWN_AT_ONCE = 2, 8
"""Hellos that are checked at the same time."""
LOOKS_AT_ONCE = 2
"""Of strangers, and as many of known networks: nodes that the mirror doesn't know, about which the chain is asked."""
_LOOKS_PER_SECOND, _MOST_LOOKS = 5.0, 20.0
KNOWN_FOR_DAYS = 7
LOOK_EVERY_S, LOOK_AGAIN_S = 30.0, 1.0
"""Between looks at which networks are known, and after one that failed."""
_T = TypeVar("_T")
_GONE = (WebSocketDisconnect, RuntimeError, OSError)
_log = structlog.get_logger("marketplace.gateway")


class NotReceived(Exception):
    """The connection was refused, or dropped for another, before anything was said; there is nobody to tell."""

    retryable = True


class _Kind:
    """What strangers share with each other, or known networks: turns to be checked, and looks at the chain."""

    def __init__(self, at_once: int) -> None:
        self.turns = CapacityLimiter(at_once)
        self.looks = CapacityLimiter(LOOKS_AT_ONCE)
        self.bucket = Bucket(_LOOKS_PER_SECOND, _MOST_LOOKS, time.monotonic())


class Greeter:
    """Lets nodes in. Lives on the event loop."""

    def __init__(self, parts: Parts) -> None:
        settings = parts.settings
        self._parts = parts
        self.door = Door(
            DoorLimits(
                places=settings.greetings,
                reserved=settings.greetings_reserved,
                of_nobody=max((settings.greetings - settings.greetings_reserved) // 8, 1),
                of_stranger=settings.greetings_of_stranger,
                of_known=settings.greetings_of_known,
                per_second=settings.knocks_per_second,
                burst=settings.knocks_burst,
            )
        )
        self._strangers, self._known = _Kind(STRANGERS_AT_ONCE), _Kind(KNOWN_AT_ONCE)
        self._threads = CapacityLimiter(STRANGERS_AT_ONCE + KNOWN_AT_ONCE + 2 * LOOKS_AT_ONCE)

    async def keep_known(self, alive: Alive) -> None:
        """Learn from which networks staked nodes came of late, until cancelled."""
        while True:
            wait = LOOK_EVERY_S
            try:
                self.door.know(await to_thread.run_sync(self._known_networks))
            except DatabaseUnavailable as error:
                _log.warning("known networks not read", reason=str(error))
                wait = LOOK_AGAIN_S
            alive()
            await asyncio.sleep(wait)

    async def greet(self, socket: WebSocket) -> NodeSession:
        """Admit the node behind a socket. Raises SessionOver (tell it and close) or NotReceived (drop it)."""
        address = socket.client.host if socket.client else ""
        try:
            self.door.check(address)
            place = self.door.enter(address, lambda: greeting.cancel())  # noqa: PLW0108  (it is made below)
        except TooMany:
            self._count("limited")
            with suppress(*_GONE):
                await socket.close()
            raise NotReceived from None
        self._parts.metrics.greeting.set(len(self.door))
        greeting = asyncio.ensure_future(self._welcome(socket, place))
        try:
            admitted = await greeting
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
            node=admitted.node,
            provider=admitted.provider,
            shunned_s=admitted.welcome.resume_after_s,
        )
        return NodeSession(socket, admitted.node, admitted.provider, admitted.session, admitted.sealing_key)

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
        place.spoke = True
        try:
            admitted = await self._admit(socket, place, text, nonce)
        except DatabaseUnavailable as error:
            raise SessionOver(RESTART, "the database is away: try again") from error
        except OtherMasterKey as error:
            raise SessionOver(RESTART, "the marketplace ends: try again") from error
        protocol_of(socket).admit()
        try:
            await _say(socket, admitted.welcome)
        except SessionOver:
            with suppress(DatabaseUnavailable):
                await self._thread(self._note_gone, admitted)
            raise
        return admitted

    async def _admit(self, socket: WebSocket, place: Place, text: str, nonce: str) -> Admission:
        """Check a hello in its turn; a look at the chain, which may hang, takes nobody's turn."""
        kind = self._known if place.known else self._strangers
        async with kind.turns:
            # From here on it is not driven out any more: it may be in the database already.
            self._leave(place)
            _stay(socket)
            claim = await self._thread(admission.check, self._parts, text, nonce)
            if claim.mirrored:
                return await self._thread(admission.admit, self._parts, text, claim, place.network)
        try:
            kind.looks.acquire_nowait()
        except WouldBlock:
            raise SessionOver(SLOW, "many unknown nodes are asking: try again") from None
        try:
            if not kind.bucket.take(time.monotonic()):
                raise SessionOver(SLOW, "many unknown nodes are asking: try again")
            await self._thread(admission.ask_chain, self._parts, claim)
        finally:
            kind.looks.release()
        async with kind.turns:
            _stay(socket)
            return await self._thread(admission.admit, self._parts, text, claim, place.network)

    async def _thread(self, work: Callable[..., _T], *arguments: Any) -> _T:
        return await to_thread.run_sync(work, *arguments, limiter=self._threads)

    def _note_gone(self, admitted: Admission) -> None:
        with self._parts.db.transaction() as tx:
            nodes.gone(tx, admitted.node, admitted.session)

    def _leave(self, place: Place) -> None:
        self.door.leave(place)
        self._parts.metrics.greeting.set(len(self.door))

    def _count(self, outcome: str) -> None:
        self._parts.metrics.greetings.labels(outcome).inc()

    def _known_networks(self) -> frozenset[str]:
        with self._parts.db.transaction() as tx:
            return nodes.known_networks(tx, KNOWN_FOR_DAYS, self._parts.settings.suggested_min_collateral)


def _stay(socket: WebSocket) -> None:
    """Nothing is spent on a hello whose sender has left: it can't be told anything."""
    if protocol_of(socket).gone:
        raise SessionOver(GONE, "the node left before its turn came")


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
