"""The agent's local control socket: one JSON line in, one out. `drain` and `status`, for `everlease provider`.

{"command": "drain", "exit_when_empty": true, "reason": "…"}  →  {"ok": true, "jobs_left": 1}
{"command": "status"}  →  {"ok": true, "node": "0x…", "connected": true, "draining": false, "jobs": […]}
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

MAX_LINE = 64 * 1024
Answer = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]


@asynccontextmanager
async def control_socket(path: Path, answer: Answer) -> AsyncIterator[None]:
    """Listen at ``path`` (mode 0600) while the block runs."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            request = json.loads(await asyncio.wait_for(reader.readline(), 10))
            if not isinstance(request, dict):
                raise ValueError("a request is an object")
            reply = await answer(request)
        except (ValueError, TimeoutError) as error:
            reply = {"ok": False, "error": str(error)[:500]}
        try:
            writer.write(json.dumps(reply).encode() + b"\n")
            await writer.drain()
        except OSError:
            return
        finally:
            writer.close()

    await asyncio.to_thread(path.unlink, missing_ok=True)
    server = await asyncio.start_unix_server(serve, path, limit=MAX_LINE)
    await asyncio.to_thread(path.chmod, 0o600)
    try:
        yield
    finally:
        server.close()
        await asyncio.to_thread(path.unlink, missing_ok=True)


async def ask(path: Path, request: dict[str, Any], timeout_s: float = 10.0) -> dict[str, Any]:
    """Send one request to a running agent. Raises OSError when there is none, ValueError for a garbled answer."""
    reader, writer = await asyncio.wait_for(asyncio.open_unix_connection(path, limit=MAX_LINE), timeout_s)
    try:
        writer.write(json.dumps(request).encode() + b"\n")
        await writer.drain()
        reply = json.loads(await asyncio.wait_for(reader.readline(), timeout_s))
    finally:
        writer.close()
    if not isinstance(reply, dict):
        raise ValueError("the agent's answer is not an object")
    return reply
