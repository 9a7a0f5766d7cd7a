"""Commands that run side by side, and how all of them end when this process is told to."""

import os
import signal
import subprocess
import threading
from contextlib import suppress
from types import FrameType
from typing import Any


class Interrupted(Exception):
    """We were told to end, so this command was not started."""


class Children:
    """The first SIGINT or SIGTERM reaches each command as one SIGINT, so that pytest stops the servers of its tests.
    A second one kills what still runs.
    """

    def __init__(self) -> None:
        self.told = 0
        """The signal that told us to end, or 0."""
        self._obeying = False
        self._running: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.RLock()

    def obey(self) -> None:
        """Take over SIGINT and SIGTERM from now on; call it in the main thread."""
        self._obeying = True
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._tell)

    def run(self, argv: list[str], *, timeout: float | None, **how: Any) -> int:
        """Run to the end; the exit code. Raises Interrupted, subprocess.TimeoutExpired, FileNotFoundError.

        Once we obey, a command has a process group of its own: Ctrl-C then comes through us, and only once.
        """
        with self._lock:
            if self.told:
                raise Interrupted
            process = subprocess.Popen(argv, start_new_session=self._obeying, **how)
            self._running.add(process)
        try:
            return process.wait(timeout)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
            with self._lock:
                self._running.discard(process)

    def _tell(self, number: int, _frame: FrameType | None) -> None:
        with self._lock:
            again, self.told = bool(self.told), number
            for process in self._running:
                if not again:
                    process.send_signal(signal.SIGINT)
                elif process.returncode is None:
                    with suppress(ProcessLookupError):
                        os.killpg(process.pid, signal.SIGKILL)
