"""The supervisor of a process that lives on an event loop."""

import asyncio
import time
from collections.abc import Awaitable, Callable

from everlease.supervision.roster import Alive, Clock, Record, Report, Roster

GRACE_S = 1.0
"""Silence is asked about twice, so far apart: a loop that stood still itself makes everybody look silent."""
ENDING_S = 5.0
"""How long a stalled run may take to end once it was cancelled, before the next one begins beside it."""


class TaskSupervisor:
    """Keeps asyncio tasks running until ``close``. A stalled one is cancelled and started again."""

    def __init__(self, report: Report, clock: Clock = time.monotonic) -> None:
        self.roster = Roster(clock)
        self._report = report
        self._keepers: dict[str, asyncio.Task[None]] = {}

    def start(
        self, name: str, work: Callable[[Alive], Awaitable[None]], *, silent_at_most_s: float, vital: bool = True
    ) -> None:
        """Run ``work`` for ever. ``vital``: without it the process is not ready."""
        record = self.roster.add(name, silent_at_most_s, vital)
        self._keepers[name] = asyncio.create_task(self._keep(record, work), name=name)

    def stop(self, name: str) -> None:
        """End one task for good, soon; nothing where it was never started."""
        if name in self._keepers:
            self._keepers[name].cancel()

    async def close(self) -> None:
        """End everything and wait for it."""
        for keeper in self._keepers.values():
            keeper.cancel()
        await asyncio.gather(*self._keepers.values(), return_exceptions=True)

    async def _keep(self, record: Record, work: Callable[[Alive], Awaitable[None]]) -> None:
        try:
            while True:
                record.begin()
                what, error = await _one_run(record, work)
                wait = record.over()
                self._report(record.name, what, error)
                await asyncio.sleep(wait)
        finally:
            record.stop()


async def _one_run(record: Record, work: Callable[[Alive], Awaitable[None]]) -> tuple[str, BaseException | None]:
    """Run until it ends or stalls; returns what became of it. What a run says that was given up counts no more."""
    given_up = False

    def alive() -> None:
        if not given_up:
            record.alive()

    run = asyncio.ensure_future(work(alive))
    try:
        while not run.done():
            await asyncio.wait([run], timeout=max(record.silent_at_most_s - record.silent_s, 0.0))
            if not run.done() and record.silent_s > record.silent_at_most_s:
                await asyncio.wait([run], timeout=GRACE_S)
                if not run.done() and record.silent_s > record.silent_at_most_s:
                    return f"said nothing for {record.silent_s:.0f} s", None
    finally:
        given_up = True
        if not run.done():
            run.cancel()
            await asyncio.wait([run], timeout=ENDING_S)
    if run.cancelled():
        return "was cancelled", None
    error = run.exception()
    return ("failed" if error is not None else "ended"), error
