"""The rows that a batch of events works on: read on first touch, changed in memory, written at the end."""

from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar

from msgspec.structs import asdict

from indexer.records import KINDS, Record

Columns = Mapping[str, Any]
Load = Callable[[str, Collection[str]], Mapping[str, Columns]]
"""(table, keys) → the stored rows among them, by key."""
_Kind = TypeVar("_Kind", bound=Record)


class Contradiction(Exception):
    """An event that can't follow from what the mirror holds: a bug or a broken source. The indexer halts on it."""

    retryable = False


class Workspace:
    """``images``: what each block that was begun found before it first changed a row (None: there was none)."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._known: set[tuple[str, str]] = set()
        self._now: dict[tuple[str, str], Record] = {}
        self._changed: set[tuple[str, str]] = set()
        self._block: int | None = None
        self._kept: set[tuple[str, str]] = set()
        self.images: list[tuple[int, str, str, Columns | None]] = []

    def begin(self, block: int) -> None:
        """From here on rows are changed by ``block``, which may be undone."""
        self._block = block
        self._kept = set()

    def expect(self, table: str, keys: Collection[str]) -> None:
        """Read rows that are about to be asked for in one go."""
        wanted = {key for key in keys if (table, key) not in self._known}
        if not wanted:
            return
        self._known.update((table, key) for key in wanted)
        for key, stored in self._load(table, wanted).items():
            self._now[table, key] = KINDS[table](**stored)

    def find(self, kind: type[_Kind], key: str) -> _Kind | None:
        """A row as it is after the events so far."""
        if (kind.TABLE, key) not in self._known:
            self.expect(kind.TABLE, (key,))
        found = self._now.get((kind.TABLE, key))
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
        found = self.find(type(record), record.key)
        if self._block is not None and place not in self._kept:
            self._kept.add(place)
            self.images.append((self._block, *place, None if found is None else asdict(found)))
        self._now[place] = record
        self._changed.add(place)

    @property
    def after(self) -> dict[tuple[str, str], Columns]:
        """Every row that changed, as it is to be stored."""
        return {place: asdict(self._now[place]) for place in self._changed}
