"""The rows that a batch of events works on: read on first touch, changed in memory, written at the end."""

from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar, cast

from msgspec.structs import asdict, astuple

from everlease.db.derived import Change
from indexer.records import APPENDED, KINDS, Record

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
        self._rows: dict[type[Any], dict[str, Any]] = {kind: {} for kind in KINDS.values()}
        self._changed: dict[type[Any], set[str]] = {kind: set() for kind in KINDS.values()}
        self._stored: dict[type[Any], set[str]] = {kind: set() for kind in KINDS.values()}
        self._block: int | None = None
        self._kept: set[tuple[str, str]] = set()
        self.images: list[tuple[int, str, str, Columns | None]] = []

    def begin(self, block: int) -> None:
        """From here on rows are changed by ``block``, which may be undone."""
        self._block = block
        self._kept = set()

    def expect(self, table: str, keys: Collection[str]) -> None:
        """Read rows that are about to be asked for in one go."""
        kind = KINDS[table]
        rows = self._rows[kind]
        wanted = {key for key in keys if key not in rows}
        if not wanted:
            return
        rows.update(dict.fromkeys(wanted))
        if kind in APPENDED:
            return
        for key, stored in self._load(table, wanted).items():
            rows[key] = kind(**stored)
            self._stored[kind].add(key)

    def find(self, kind: type[_Kind], key: str) -> _Kind | None:
        """A row as it is after the events so far."""
        rows = self._rows[kind]
        if key not in rows:
            self.expect(kind.TABLE, (key,))
        return cast(_Kind | None, rows[key])

    def get(self, kind: type[_Kind], key: str) -> _Kind:
        """A row that must be there; raises Contradiction."""
        found = self.find(kind, key)
        if found is None:
            raise Contradiction(f"there is no {kind.TABLE} {key}")
        return found

    def put(self, record: Record) -> None:
        """Store a row in place of the one with its key."""
        kind, key = type(record), record.key
        if self._block is not None:
            self._keep_image(self._block, kind, key)
        self._rows[kind][key] = record
        self._changed[kind].add(key)

    def _keep_image(self, block: int, kind: type[Record], key: str) -> None:
        place = (kind.TABLE, key)
        if place not in self._kept:
            self._kept.add(place)
            found = self.find(kind, key)
            self.images.append((block, *place, None if found is None else asdict(found)))

    @property
    def changes(self) -> list[Change]:
        """What is to be stored."""
        return [
            Change(
                kind.TABLE,
                kind.__struct_fields__,
                [astuple(self._rows[kind][key]) for key in keys],
                keys & self._stored[kind],
            )
            for kind, keys in self._changed.items()
            if keys
        ]
