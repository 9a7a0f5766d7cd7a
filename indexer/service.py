"""The loop around the follower: step, wait for a head, step again; errors that may pass are waited out."""

import threading
import time
from collections.abc import Callable

import structlog

from everlease.chain.heads import HeadWaiter
from indexer.follower import Follower, Step

_log = structlog.get_logger("indexer")
_LONGEST_WAIT_S = 10.0
GC_THRESHOLD = 30_000
"""For gc.set_threshold: a step makes about that many objects, none of them in cycles. Python's default looks for
cycles after every 700, which took a tenth of the time."""


class IndexerLoop:
    """Runs until ``stop``. ``last_step_at`` (monotonic seconds) and ``problem`` are what health checks read."""

    def __init__(self, follower: Follower, heads: HeadWaiter, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._follower = follower
        self._heads = heads
        self._clock = clock
        self._stopping = threading.Event()
        self.last_step_at = clock()
        self.problem = ""

    def run(self) -> None:
        """Follow the chain. An error that no wait can heal ends the loop and is raised."""
        wait = 0.2
        while not self._stopping.is_set():
            try:
                step = self._follower.step()
            except Exception as error:
                if not getattr(error, "retryable", False):
                    self.problem = str(error)
                    raise
                if self.problem != str(error):
                    _log.warning("waiting", problem=str(error))
                self.problem = str(error)
                self._stopping.wait(wait)
                wait = min(wait * 2, _LONGEST_WAIT_S)
                continue
            wait, self.problem, self.last_step_at = 0.2, "", self._clock()
            if step in (Step.IDLE, Step.HALTED):
                self._heads.wait()
        self._heads.close()

    def stop(self) -> None:
        """End the loop after the step it is in."""
        self._stopping.set()

    @property
    def age_s(self) -> float:
        """Seconds since a step last succeeded."""
        return self._clock() - self.last_step_at
