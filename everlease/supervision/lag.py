"""How late an event loop is: what runs on it for long makes everything else wait."""

import asyncio
from collections.abc import Callable

from everlease.supervision.roster import Alive

EVERY_S = 0.1


async def watch_loop(alive: Alive, observe: Callable[[float], None]) -> None:
    """Tell ``observe`` ten times a second by how many seconds a timer was late, until cancelled."""
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + EVERY_S
        await asyncio.sleep(EVERY_S)
        observe(max(loop.time() - due, 0.0))
        alive()
