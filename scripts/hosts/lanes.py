"""Columns of the table played side by side, as many as there are lanes; a kind of host is in one column at a time."""

import threading
from collections.abc import Callable, Sequence

from hosts.registry import Scenario

Column = tuple[str, list[Scenario]]
"""A kind, or two kinds joined by '+', and the scenarios that are played there."""


def kinds_of(column: str) -> list[str]:
    """The kinds of host that a column boots, without repeats."""
    return list(dict.fromkeys(column.split("+")))


class Lanes:
    """Plays columns in their order, ``count`` at once."""

    def __init__(self, columns: Sequence[Column], count: int, play: Callable[[str, list[Scenario]], None]) -> None:
        self._left, self._play = list(columns), play
        self._busy: set[str] = set()
        self._failed: list[Exception] = []
        self._changed = threading.Condition()
        # Daemons: a thread that waits for a guest must not keep an interrupted bench alive.
        self._threads = [threading.Thread(target=self._lane, daemon=True) for _ in range(count)]

    def run(self) -> None:
        """Play everything. Raises what a column raised first; the others end theirs, and no further one begins."""
        for thread in self._threads:
            thread.start()
        for thread in self._threads:
            thread.join()
        if self._failed:
            raise self._failed[0]

    def _lane(self) -> None:
        while (column := self._take()) is not None:
            name, scenarios = column
            try:
                self._play(name, scenarios)
            except Exception as error:
                self._failed.append(error)
            finally:
                with self._changed:
                    self._busy.difference_update(kinds_of(name))
                    self._changed.notify_all()

    def _take(self) -> Column | None:
        """The next column none of whose kinds is busy; None when there is nothing left to do."""
        with self._changed:
            while self._left and not self._failed:
                for column in self._left:
                    kinds = kinds_of(column[0])
                    if self._busy.isdisjoint(kinds):
                        self._left.remove(column)
                        self._busy.update(kinds)
                        return column
                self._changed.wait()
            return None
