"""The agent's local control socket: one JSON line in, one out. `drain`, `stop` and `status`, for `everlease provider`;
`restart` for the unit.

{"command": "drain", "exit_when_empty": true, "reason": "…"}  →  {"ok": true, "jobs_left": 1}
{"command": "stop", "within_s": 90, "reason": "…"}  →  {"ok": true, "jobs": [{"job_id": …, "still": …, "why": …}]}
    once all jobs have left or stand still, at the latest when the time is up; the agent ends after the answer
{"command": "restart"}  →  {"ok": true}
    the marketplace has heard that this agent ends only to be started anew; whoever asked ends it
{"command": "status"}  →  {"ok": true, "node": "0x…", "connected": true, "draining": false, "jobs": […]}
"""

import asyncio
import fcntl
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from provider_agent.errors import ConfigurationRefused

MAX_LINE = 64 * 1024
DEPARTED = 79
"""The exit code of an agent that has left: whoever keeps it running must not start it again (units.agent_service)."""
DEFAULT_STOP_S, LONGEST_STOP_S = 60.0, 86_400.0
Answer = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]


def lock_folder(data_dir: Path) -> int:
    """Keep a second agent from the same data folder for as long as the returned descriptor is open.

    Raises ConfigurationRefused: one works there, and two would write one journal and drop each other's jobs.
    """
    handle = os.open(data_dir / "agent.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise ConfigurationRefused(
            f"an agent works with {data_dir} already: stop it first, or give this one a data folder of its own"
        ) from None
    return handle


@asynccontextmanager
async def control_socket(path: Path, answer: Answer) -> AsyncIterator[None]:
    """Listen at ``path`` (mode 0600) while the block runs."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(10):
                request = json.loads(await reader.readline())
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


def stop_terms(request: dict[str, Any]) -> tuple[float, str]:
    """(seconds, reason) of a stop. Raises ValueError in words for whoever asked."""
    within = request.get("within_s", DEFAULT_STOP_S)
    if isinstance(within, bool) or not isinstance(within, int | float) or not 0 <= within <= LONGEST_STOP_S:
        raise ValueError(f"within_s is a number of seconds from 0 to {LONGEST_STOP_S:.0f}")
    return float(within), str(request.get("reason") or "the provider stops this node")


async def ask(path: Path, request: dict[str, Any], timeout_s: float = 10.0) -> dict[str, Any]:
    """Send one request to a running agent. Raises OSError when there is none, ValueError for a garbled answer."""
    async with asyncio.timeout(timeout_s):
        reader, writer = await asyncio.open_unix_connection(path, limit=MAX_LINE)
    try:
        writer.write(json.dumps(request).encode() + b"\n")
        await writer.drain()
        async with asyncio.timeout(timeout_s):
            reply = json.loads(await reader.readline())
    finally:
        writer.close()
    if not isinstance(reply, dict):
        raise ValueError("the agent's answer is not an object")
    return reply
