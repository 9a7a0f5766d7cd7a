"""The loop around the follower: step, wait for a head, step again; errors that may pass are waited out."""

import threading

import structlog

from everlease.chain.heads import HeadWaiter
from everlease.supervision import Alive
from indexer.follower import Follower, Step

_log = structlog.get_logger("indexer")
_LONGEST_WAIT_S = 10.0
GC_THRESHOLD = 30_000
"""For gc.set_threshold: a step makes about that many objects, none of them in cycles. Python's default looks for
cycles after every 700, which took a tenth of the time."""


class IndexerLoop:
    """Runs until ``stopping`` is set. ``problem`` says why it waits, for health checks."""

    def __init__(self, follower: Follower, heads: HeadWaiter, stopping: threading.Event) -> None:
        self._follower = follower
        self._heads = heads
        self._stopping = stopping
        self.problem = ""

    def run(self, alive: Alive) -> None:
        """Follow the chain; ``alive`` is called after each step. An error that no wait can heal is raised."""
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
            wait, self.problem = 0.2, ""
            alive()
            if step in (Step.IDLE, Step.HALTED):
                self._heads.wait()
        self._heads.close()
