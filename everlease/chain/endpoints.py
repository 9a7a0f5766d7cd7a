"""Which of several RPC endpoints to ask: those that answer, serve the right chain and keep up, in the order given."""

import math
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

MAX_LAG = 5
"""Blocks behind the best endpoint from which on one is asked last."""
PROBE_TIMEOUT_S = 2.0


@dataclass(slots=True)
class _Health:
    """``head``: its newest block when last probed. ``checked``: serves our chain, as it said after it last failed."""

    up: bool = True
    head: int | None = None
    checked: bool = False


class Endpoints:
    """Thread-safe. One that failed is asked last until a probe finds it well again, so that an endpoint which hangs
    costs one time-out and not one per call. ``probe`` asks a URL for its head, and raises where it gets none; it runs
    in the background, for all URLs every ``every`` seconds (inf: never) while there are calls, not for a single URL."""

    def __init__(
        self,
        urls: Sequence[str],
        probe: Callable[[str], int],
        *,
        every: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._health = {url: _Health() for url in urls}
        self._probe = probe
        self._every = every
        self._clock = clock
        self._next_probe = clock() if math.isfinite(every) else math.inf
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None

    @property
    def urls(self) -> list[str]:
        """All URLs, in the order given."""
        return list(self._health)

    def in_order(self) -> list[str]:
        """All URLs: those that are well, then those that lag, then those that failed; each group in the order given."""
        self._probe_if_due()
        with self._lock:
            best = max((health.head for health in self._health.values() if health.up and health.head), default=0)

            def rank(url: str) -> int:
                health = self._health[url]
                lags = health.head is not None and health.head < best - MAX_LAG
                return 2 if not health.up else int(lags)

            return sorted(self._health, key=rank)

    def failed(self, url: str) -> None:
        """It did not answer, or answered rubbish."""
        with self._lock:
            self._health[url] = _Health(up=False)

    def worked(self, url: str) -> None:
        """It answered."""
        with self._lock:
            self._health[url].up = True

    def is_checked(self, url: str) -> bool:
        """Whether its chain id is known to be right."""
        with self._lock:
            return self._health[url].checked

    def checked(self, url: str) -> None:
        """It serves the right chain."""
        with self._lock:
            self._health[url].checked = True

    def close(self) -> None:
        """No more probes; waits for those under way, which would connect once more."""
        with self._lock:
            self._next_probe = math.inf
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def _probe_if_due(self) -> None:
        with self._lock:
            if len(self._health) < 2 or self._clock() < self._next_probe:
                return
            self._next_probe = self._clock() + self._every
            if self._pool is None:
                self._pool = ThreadPoolExecutor(len(self._health), thread_name_prefix="rpc-probe")
            for url in self._health:
                self._pool.submit(self._probe_one, url)

    def _probe_one(self, url: str) -> None:
        try:
            head = self._probe(url)
        except Exception:
            self.failed(url)
            return
        with self._lock:
            health = self._health[url]
            health.up, health.head = True, head
