"""The blocks that a collection keeps, on disk: however many there are, they take a few MiB of memory.

A collection is most wanted where the disk is full. Then they are kept in memory, up to a bound.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Self

from everlease.store.errors import StoreFull
from everlease.store.sqlite import exclusive

_CACHE_KIB = 8192
_MEMORY_KIB = 512 * 1024
"""About ten million blocks."""
_CHUNK = 500
_AT_ONCE = 10_000


class LiveSet:
    """Digests in a temporary file that is gone when it is closed. For one thread at a time."""

    def __init__(self) -> None:
        # SQLite's temporary database: private, deleted by itself, in memory only as far as its cache reaches.
        self._db = _database("")
        self._in_memory = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._db.close()

    def __len__(self) -> int:
        return int(self._db.execute("SELECT count(*) FROM live").fetchone()[0])

    def add(self, digests: Iterable[bytes]) -> None:
        """Add digests; those that are in it already change nothing. Raises StoreFull."""
        rest = iter(digests)
        while chunk := list(islice(rest, _AT_ONCE)):
            try:
                self._insert(chunk)
            except StoreFull:
                if self._in_memory:
                    raise
                self._move_to_memory()
                self._insert(chunk)

    def _insert(self, digests: Iterable[bytes]) -> None:
        with exclusive(self._db, "the live blocks don't fit it") as db:
            db.executemany("INSERT OR IGNORE INTO live VALUES (?)", ((digest,) for digest in digests))

    def _move_to_memory(self) -> None:
        on_disk, self._db = self._db, _database(":memory:")
        self._in_memory = True
        self._db.execute(f"PRAGMA max_page_count={_MEMORY_KIB // 4}")
        self._insert(digest for (digest,) in on_disk.execute("SELECT digest FROM live"))
        on_disk.close()

    def among(self, digests: Sequence[bytes]) -> set[bytes]:
        """Which of these digests are in it."""
        found: set[bytes] = set()
        for start in range(0, len(digests), _CHUNK):
            chunk = digests[start : start + _CHUNK]
            marks = ",".join("?" * len(chunk))
            query = f"SELECT digest FROM live WHERE digest IN ({marks})"  # noqa: S608
            found.update(row[0] for row in self._db.execute(query, chunk))
        return found


def _database(name: str) -> sqlite3.Connection:
    db = sqlite3.connect(name, check_same_thread=False, isolation_level=None)
    db.execute("PRAGMA page_size=4096")
    db.execute(f"PRAGMA cache_size=-{_CACHE_KIB}")
    db.execute("PRAGMA synchronous=OFF")
    db.execute("CREATE TABLE live (digest BLOB PRIMARY KEY) WITHOUT ROWID")
    return db
