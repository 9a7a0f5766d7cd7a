"""One node's connection: numbered messages in both directions, a bounded queue outwards, one orderly end."""

import asyncio
import time

from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from everlease.wire.base import Message
from everlease.wire.node import MAX_FRAME_BYTES

MAX_WAITING = 1024
SEND_TIMEOUT_S = 10.0

PROTOCOL = 4002
REFUSED = 4001
REPLACED = 4000
RESTART = 1012
GONE = 1001
SLOW = 1013
TOO_LARGE = 1009


class SessionOver(Exception):
    """The connection has to end: a close code (RFC 6455, 4000s are ours) and why."""

    retryable = False

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason

    @property
    def sent_away(self) -> bool:
        """Whether the end was our own doing: it says nothing about the host, and the node comes back at once."""
        return self.code == RESTART


class Pace:
    """A bucket that fills with time. A node that says more than it holds is heard later, and no other node waits."""

    def __init__(self, now: float, per_second: float = 200.0, most: float = 2000.0) -> None:
        self._per_second, self._most = per_second, most
        self._left, self._at = most, now

    def delay(self, size: int, now: float) -> float:
        """Seconds to wait before a message of ``size`` characters is handled; one unit each and one per 16 KiB."""
        self._left = min(self._most, self._left + (now - self._at) * self._per_second)
        self._at = now
        self._left -= 1 + size / 16_384
        return max(0.0, -self._left / self._per_second)


class NodeSession:
    """An admitted node. ``send`` may be called from the event loop at any time and never blocks."""

    def __init__(self, socket: WebSocket, node: str, provider: str, session_id: str, sealing_key: str) -> None:
        self.node = node
        self.provider = provider
        self.id = session_id
        self.sealing_key = sealing_key
        self.began = time.monotonic()
        self.sent_commands: set[int] = set()
        self.asked_auctions: set[int] = set()
        self.answered: set[int] = set()
        self.dispatching = asyncio.Lock()
        self.catching_up = 0
        self.draining = False
        self.jobs_left: int | None = None
        self.proven = False
        self.pace = Pace(self.began, per_second=20.0, most=400.0)
        self._socket = socket
        self._waiting: asyncio.Queue[Message] = asyncio.Queue(MAX_WAITING)
        self._end: asyncio.Future[SessionOver] = asyncio.get_running_loop().create_future()
        self._received = 0
        self._receipts: dict[str, int] = {}

    def prove(self) -> None:
        """The node was given a job once, so its provider had something to lose: it may say more than others."""
        self.proven = True
        self.pace = Pace(time.monotonic())

    def send(self, message: Message) -> None:
        """Queue a message; its ``seq`` is set when it leaves. A node that doesn't read is sent away."""
        try:
            self._waiting.put_nowait(message)
        except asyncio.QueueFull:
            self.end(SLOW, "this node doesn't read what it is sent")

    def end(self, code: int, reason: str) -> None:
        """Ask for the connection's end; the first reason counts."""
        if not self._end.done():
            self._end.set_result(SessionOver(code, reason))

    async def ended(self) -> SessionOver:
        """Wait until somebody asked for the end."""
        return await asyncio.shield(self._end)

    async def write(self) -> None:
        """Send what is queued, numbered from 1, until cancelled."""
        number = 0
        while True:
            message = await self._waiting.get()
            number += 1
            frame = message.model_copy(update={"seq": number}).model_dump_json()
            try:
                async with asyncio.timeout(SEND_TIMEOUT_S):
                    await self._socket.send_text(frame)
            except TimeoutError:
                self.end(SLOW, "this node doesn't read what it is sent")
                return
            except (WebSocketDisconnect, RuntimeError, OSError):
                self.end(GONE, "the socket is gone")
                return

    async def receive(self) -> str:
        """The next frame's text; raises SessionOver where the socket closed or the frame is too large."""
        return await receive_frame(self._socket)

    def is_news(self, lease_id: str, seq: int) -> bool:
        """Whether this receipt was not pushed in this session yet; it counts as pushed from now on."""
        known = self._receipts.get(lease_id, -1)
        self._receipts[lease_id] = max(seq, known)
        return seq > known

    def check_number(self, seq: int) -> None:
        """Raise SessionOver unless this is the next number."""
        if seq != self._received + 1:
            raise SessionOver(PROTOCOL, f"message {seq} came where {self._received + 1} was expected")
        self._received = seq


async def receive_frame(socket: WebSocket) -> str:
    """One text frame; raises SessionOver where the socket closed, the frame is binary or too large."""
    try:
        text = await socket.receive_text()
    except WebSocketDisconnect as error:
        # Whatever code the node gives: it must not be able to pass for one that we sent away.
        raise SessionOver(GONE, f"the node closed the connection ({error.code})") from error
    except (KeyError, RuntimeError) as error:
        raise SessionOver(PROTOCOL, "only text frames are understood") from error
    if len(text) > MAX_FRAME_BYTES:
        raise SessionOver(TOO_LARGE, f"a frame has at most {MAX_FRAME_BYTES} bytes")
    # PostgreSQL keeps no NUL in text or jsonb, and a program's output may well hold one. SUBSTITUTE is a byte too:
    # the offsets of output count bytes.
    return text.replace("\\u0000", "\\u001a")


async def close_socket(socket: WebSocket, code: int, reason: str) -> None:
    """Close with a reason (123 bytes at most), whatever state the socket is in."""
    if socket.client_state is WebSocketState.DISCONNECTED or socket.application_state is WebSocketState.DISCONNECTED:
        return
    short = reason.encode()[:120].decode("utf-8", "ignore")
    try:
        async with asyncio.timeout(2.0):
            await socket.close(code, short)
    except (RuntimeError, OSError, TimeoutError, WebSocketDisconnect):
        return
