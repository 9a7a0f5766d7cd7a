"""Waiting for new blocks: a newHeads subscription where the endpoint has one, the clock where it doesn't."""

import json
import time
from collections.abc import Callable
from contextlib import suppress

from websockets.exceptions import InvalidHandshake, WebSocketException
from websockets.sync.client import ClientConnection, connect

_RETRY_S = 5.0


class HeadWaiter:
    """``wait`` returns as soon as there may be a new block, and at the latest after ``poll_s``.

    A reorg need not be announced (Anvil announces none), so callers compare parent hashes after every return.
    """

    def __init__(self, ws_url: str | None, *, poll_s: float = 1.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._url = ws_url
        self._poll_s = poll_s
        self._clock = clock
        self._socket: ClientConnection | None = None
        self._next_try = 0.0

    @property
    def subscribed(self) -> bool:
        """Whether a subscription is up."""
        return self._socket is not None

    def wait(self) -> None:
        """Sleep until the next head or ``poll_s``; never raises for a lost connection."""
        started = self._clock()
        self._ensure_socket()
        if self._socket is not None:
            try:
                self._socket.recv(timeout=self._poll_s)
                self._drain()
                return
            except TimeoutError:
                return
            except (OSError, WebSocketException):
                self.close()
        time.sleep(max(0.0, self._poll_s - (self._clock() - started)))

    def close(self) -> None:
        """Drop the subscription."""
        if self._socket is not None:
            with suppress(OSError, WebSocketException):
                self._socket.close()
            self._socket = None

    def _drain(self) -> None:
        """Swallow what else has arrived: one return is enough for many heads."""
        assert self._socket is not None
        with suppress(TimeoutError):
            while True:
                self._socket.recv(timeout=0)

    def _ensure_socket(self) -> None:
        if self._socket is not None or self._url is None or self._clock() < self._next_try:
            return
        self._next_try = self._clock() + _RETRY_S
        try:
            socket = connect(self._url, open_timeout=3, close_timeout=1, max_size=1 << 20)
            socket.send(json.dumps({"jsonrpc": "2.0", "id": 1, "method": "eth_subscribe", "params": ["newHeads"]}))
            answer = json.loads(socket.recv(timeout=3))
        except (OSError, TimeoutError, InvalidHandshake, WebSocketException, ValueError):
            return
        if isinstance(answer, dict) and "result" in answer:
            self._socket = socket
        else:
            socket.close()
