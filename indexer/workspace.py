"""The rows that a batch of events works on: read on first touch, changed in memory, written at the end."""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, TypeVar

from indexer.records import KINDS, Record

Load = Callable[[str, str], Mapping[str, Any] | None]
_Kind = TypeVar("_Kind", bound=Record)


class Contradiction(Exception):
    """An event that can't follow from what the mirror holds: a bug or a broken source. The indexer halts on it."""

    retryable = False


class Workspace:
    """``load`` reads a stored row. ``before`` and ``after`` give what was and what is to be stored."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._now: dict[tuple[str, str], Record] = {}
        self._before: dict[tuple[str, str], Mapping[str, Any] | None] = {}
        self._changed: set[tuple[str, str]] = set()

    def find(self, kind: type[_Kind], key: str) -> _Kind | None:
        """A row as it is after the events so far."""
        place = (kind.TABLE, key)
        if place not in self._before:
            stored = self._load(*place)
            self._before[place] = stored
            if stored is not None:
                self._now[place] = KINDS[kind.TABLE](**stored)
        found = self._now.get(place)
        assert found is None or isinstance(found, kind)
        return found

    def get(self, kind: type[_Kind], key: str) -> _Kind:
        """A row that must be there; raises Contradiction."""
        found = self.find(kind, key)
        if found is None:
            raise Contradiction(f"there is no {kind.TABLE} {key}")
        return found

    def put(self, record: Record) -> None:
        """Store a row in place of the one with its key."""
        place = (record.TABLE, record.key)
        self.find(type(record), record.key)
        self._now[place] = record
        self._changed.add(place)

    @property
    def before(self) -> dict[tuple[str, str], Mapping[str, Any] | None]:
        """The stored image of every row that changed; None where there was none."""
        return {place: self._before[place] for place in self._changed}

    @property
    def after(self) -> dict[tuple[str, str], Mapping[str, Any]]:
        """Every row that changed, as it is to be stored."""
        return {place: asdict(self._now[place]) for place in self._changed}
