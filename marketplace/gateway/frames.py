"""The WebSocket below the gateway: uvicorn's, with small bounds until its sender has proved who it is.

A socket nobody is known to hold may send one message of a hello's size, uncompressed, in a few frames. Pings, pongs and
fragments cost an event loop as much as messages do and never reach the application, so they are counted here.
"""

import asyncio
import time
from typing import Any

from starlette.websockets import WebSocket
from uvicorn.config import Config
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState
from websockets.frames import Frame

from everlease.wire.node import MAX_FRAME_BYTES, MAX_HELLO_BYTES
from marketplace.networks import Bucket

_EXTENSION = "everlease.frames"
_SLICE_BYTES = 4096
"""What is read is looked at piece by piece, so that a flood of tiny frames is noticed before all of them are parsed."""
_FRAMES_BEFORE_HELLO = 64
_CONTROLS_PER_SECOND, _MOST_CONTROLS = 20.0, 200.0


class NodeSocketProtocol(WebSocketsSansIOProtocol):
    """One connection. ``admit`` widens its bounds; ``abort`` drops it without a word."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.conn.max_size = MAX_HELLO_BYTES
        self._bytes_left = MAX_HELLO_BYTES * 2
        self._admitted = False
        self._bucket = Bucket(0.0, _FRAMES_BEFORE_HELLO, 0.0)

    @property
    def gone(self) -> bool:
        """Whether the other side left, or is being left."""
        return bool(self.disconnected or self.transport.is_closing())

    def admit(self) -> None:
        """Its sender is known: it may send large messages, and ping now and then."""
        self._admitted = True
        self.conn.max_size = MAX_FRAME_BYTES
        self._bucket = Bucket(_CONTROLS_PER_SECOND, _MOST_CONTROLS, time.monotonic())

    def abort(self) -> None:
        """Drop the connection; uvicorn has nothing to add to that, even if no handshake was made yet."""
        self.handshake_complete = True
        self.transport.abort()

    async def run_asgi(self) -> None:
        """Serve the application, which finds this protocol among the scope's extensions."""
        extensions: dict[str, Any] = {**(self.scope.get("extensions") or {}), _EXTENSION: self}
        self.scope["extensions"] = extensions
        await super().run_asgi()

    def data_received(self, data: bytes) -> None:
        """Bytes came; a socket that sends more than it may is dropped."""
        if not self._admitted:
            self._bytes_left -= len(data)
            if self._bytes_left < 0:
                self.abort()
                return
        for start in range(0, len(data), _SLICE_BYTES):
            if self.transport.is_closing():
                return
            super().data_received(data[start : start + _SLICE_BYTES])

    def handle_ping(self) -> None:
        """Answer, if there are not too many."""
        if self._within():
            super().handle_ping()

    def handle_pong(self, event: Frame) -> None:
        """We never ask for one."""
        self._within()

    def handle_cont(self, event: Frame) -> None:
        """A fragment."""
        if self._within():
            super().handle_cont(event)

    def _within(self) -> bool:
        if self._bucket.take(time.monotonic()):
            return True
        self.abort()
        return False


def protocol_of(socket: WebSocket) -> NodeSocketProtocol:
    """The connection below a WebSocket of this server."""
    protocol = socket.scope["extensions"][_EXTENSION]
    assert isinstance(protocol, NodeSocketProtocol)
    return protocol
