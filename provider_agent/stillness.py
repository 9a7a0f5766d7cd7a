"""Freezing and thawing one job's container in turn: once the agent has left the job, nothing thaws it any more."""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from threading import Event

from provider_agent import guard, guards
from provider_agent.guard import find_freezer
from provider_agent.runtime.errors import ContainerFault

log = logging.getLogger(__name__)
ANSWERED_S = 30.0
"""How long a checkpoint waits: a few tries to connect, and a heartbeat's answer."""
LEAST_LEASE_S = 1.5


class Stillness:
    """One per job. ``deadline``: until when (CLOCK_BOOTTIME) containers may run; ``confirmed``: whether the job's fence
    is current; ``left``: nothing is thawed.
    """

    def __init__(self, deadline: Callable[[], float], confirmed: Callable[[], bool]) -> None:
        self._deadline, self._confirmed, self._turn = deadline, confirmed, asyncio.Lock()
        self.left = False

    async def thaw(self, folder: Path | None, *, fenced: bool = False) -> bool:
        """Let the tasks go on; with ``fenced`` also where the guard froze them. Whether it was done.

        The deadline is the whole node's: a job whose fence may be stale has none, its guard freezes it until it is
        confirmed. Raises ContainerFault when the container is gone.
        """
        async with self._turn:
            if self.left or folder is None or (guards.fenced(folder) and not fenced):
                return False
            if not self._confirmed():
                guards.extend(folder, 0.0)
                return False
            await asyncio.to_thread(guards.thaw, folder, self._deadline())
            return True

    async def may_run(self, folder: Path | None, cancel: Event) -> bool:
        """Wait until the marketplace has answered a heartbeat and what the guard froze meanwhile is thawed, but not for
        ever; whether the job may run now.
        """
        loop = asyncio.get_running_loop()
        give_up = loop.time() + ANSWERED_S
        while folder is not None and (guards.fenced(folder) or self._deadline() - guard.boottime() < LEAST_LEASE_S):
            if self.left or cancel.is_set() or loop.time() > give_up:
                return False
            await asyncio.sleep(0.1)
        return True

    async def leave(self, folder: Path | None) -> bool:
        """Freeze for good as far as this agent is concerned; whether the container stands still now."""
        self.left = True  # first, so that no thaw begins while this waits for one that is under way
        async with self._turn:
            if folder is None or find_freezer(folder) is None:
                return True
            try:
                await asyncio.to_thread(guards.freeze, folder)
            except ContainerFault as error:
                log.warning("container %s can't be frozen: %s", folder.name[:12], error)
                return find_freezer(folder) is None
            return True
