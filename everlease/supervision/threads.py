"""The supervisor of a process that lives in threads."""

import threading
import time
from collections.abc import Callable

from everlease.supervision.roster import Alive, Clock, Record, Report, Roster

LOOK_EVERY_S = 1.0


class ThreadSupervisor:
    """Keeps threads running until ``stop`` is set. A stalled one can't be ended from outside: it is only told of."""

    def __init__(self, stop: threading.Event, report: Report, clock: Clock = time.monotonic) -> None:
        self.roster = Roster(clock)
        self._stop = stop
        self._report = report
        self._threads = [threading.Thread(target=self._watch, name="supervisor", daemon=True)]
        self._threads[0].start()

    def start(self, name: str, work: Callable[[Alive], None], *, silent_at_most_s: float, vital: bool = True) -> None:
        """Run ``work`` until ``stop``; it must look at ``stop`` itself. ``vital``: without it there is no readiness."""
        record = self.roster.add(name, silent_at_most_s, vital)
        thread = threading.Thread(target=self._keep, args=(record, work), name=name)
        self._threads.append(thread)
        thread.start()

    def join(self) -> None:
        """Wait for all threads; they end once ``stop`` is set."""
        for thread in self._threads:
            thread.join()

    def _keep(self, record: Record, work: Callable[[Alive], None]) -> None:
        while not self._stop.is_set():
            record.begin()
            error: BaseException | None = None
            try:
                work(record.alive)
            except BaseException as raised:
                # SystemExit, too, would end a thread without a word.
                error = raised
            if self._stop.is_set() and error is None:
                break
            wait = record.over()
            self._report(record.name, "failed" if error is not None else "ended", error)
            self._stop.wait(wait)
        record.stop()

    def _watch(self) -> None:
        while not self._stop.wait(LOOK_EVERY_S):
            for record in self.roster.newly_stalled():
                self._report(record.name, f"said nothing for {record.silent_s:.0f} s", None)
