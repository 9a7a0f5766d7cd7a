"""What every HTTP exchange gets: a bound on the body, security headers, metrics, a line in the log."""

import json
import time
from typing import Any

import structlog
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from marketplace.metrics import Metrics

_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'self'; frame-ancestors 'none'; base-uri 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_DOCS_POLICY = "frame-ancestors 'none'; base-uri 'none'"
_log = structlog.get_logger("marketplace.access")


class _TooLarge(Exception):
    """The body went past the limit."""


class HttpGuard:
    """ASGI middleware. Paths below /store bound their bodies themselves, block by block."""

    def __init__(self, app: ASGIApp, metrics: Metrics, max_body_bytes: int) -> None:
        self._app = app
        self._metrics = metrics
        self._limit = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = time.perf_counter(), 500
        streaming = scope["path"].startswith("/store/")
        received = 0

        async def bounded() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._limit and not streaming:
                raise _TooLarge
            return message

        async def guarded(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                _secure(MutableHeaders(scope=message), scope)
            await send(message)

        try:
            if not streaming and _declared(scope) > self._limit:
                raise _TooLarge
            await self._app(scope, bounded, guarded)
        except _TooLarge:
            await self._refuse(scope, guarded)
        finally:
            elapsed = time.perf_counter() - began
            self._metrics.requests.labels(scope["method"], str(status)).inc()
            self._metrics.request_seconds.labels(scope["method"]).observe(elapsed)
            _log.debug("request", method=scope["method"], path=scope["path"], status=status, seconds=round(elapsed, 4))

    async def _refuse(self, scope: Scope, send: Send) -> None:
        problem: dict[str, Any] = {
            "type": "urn:everlease:problem:too-large",
            "title": "too large",
            "status": 413,
            "detail": f"the body is larger than {self._limit} bytes",
            "instance": scope["path"],
        }
        headers = [(b"content-type", b"application/problem+json"), (b"connection", b"close")]
        await send({"type": "http.response.start", "status": 413, "headers": headers})
        await send({"type": "http.response.body", "body": json.dumps(problem).encode()})


def _declared(scope: Scope) -> int:
    for name, value in scope["headers"]:
        if name == b"content-length":
            return int(value) if value.isdigit() else 0
    return 0


def _secure(headers: MutableHeaders, scope: Scope) -> None:
    for name, value in _HEADERS.items():
        headers.setdefault(name, value)
    if scope["path"].startswith("/docs"):
        headers["Content-Security-Policy"] = _DOCS_POLICY
    if scope["path"].startswith("/v1/"):
        headers.setdefault("Cache-Control", "no-store")
