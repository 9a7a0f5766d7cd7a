"""Threads of their own for what must not wait behind other work: Docker may hang, and what asks it hangs along."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")

BEATING = ThreadPoolExecutor(4, "beating")
"""Heartbeats: cgroups and disks, never Docker."""
GUARDING = ThreadPoolExecutor(4, "guarding")
"""Starting a guard can take seconds."""
LOOKING = ThreadPoolExecutor(32, "looking")
"""Asking Docker whether a container has ended, which is done for each job for as long as it runs."""
BIDDING = ThreadPoolExecutor(2, "bidding")
"""Calls for bids, which anyone's order brings."""


async def run_in(pool: ThreadPoolExecutor, function: Callable[..., T], *args: object) -> T:
    """What `asyncio.to_thread` does, in this pool."""
    return await asyncio.get_running_loop().run_in_executor(pool, function, *args)
