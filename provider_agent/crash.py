"""Named steps at which a test may have the agent killed, as a power cut would: nothing is cleaned up."""

import os
import signal

STEPS = (
    "prepare.accepted",
    "prepare.image",
    "prepare.blocks",
    "prepare.done",
    "start.accepted",
    "start.fetched",
    "start.created",
    "start.launched",
    "start.done",
    "checkpoint.begun",
    "checkpoint.dumped",
    "checkpoint.stored",
    "checkpoint.requested",
    "checkpoint.answered",
    "checkpoint.done",
    "stop.accepted",
    "stop.removed",
    "leave.announced",
    "leave.held",
    "leave.frozen",
    "leave.told",
    "exit.judged",
    "final.dumped",
    "final.committed",
)


class CrashPoints:
    """``at`` names one of STEPS, with ``:N`` for its Nth time (from 1); None, the normal case, never kills."""

    def __init__(self, at: str | None = None) -> None:
        name, _, count = (at or "").partition(":")
        if name and name not in STEPS:
            raise ValueError(f"{name!r} is not a crash point: {', '.join(STEPS)}")
        self._name, self._left = name, int(count or 1)

    def reach(self, step: str) -> None:
        """SIGKILL this process when the step's turn has come."""
        if step != self._name:
            return
        self._left -= 1
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
