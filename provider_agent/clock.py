"""The two clocks of an agent: wall time for what others read, CLOCK_BOOTTIME for fencing."""

import time
from typing import Protocol


class Clock(Protocol):
    """Seconds. ``boottime`` goes on during suspend and is never set; ``unix`` may jump."""

    def unix(self) -> float: ...

    def boottime(self) -> float: ...


class SystemClock:
    """The host's clocks."""

    def unix(self) -> float:
        return time.time()

    def boottime(self) -> float:
        return time.clock_gettime(time.CLOCK_BOOTTIME)
