"""The blocks that a collection keeps, on disk: however many there are, they take a few MiB of memory."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Self

from everlease.store.sqlite import exclusive

_CACHE_KIB = 8192
_CHUNK = 500


class LiveSet:
    """Digests in a temporary file that is gone when it is closed. For one thread at a time."""

    def __init__(self) -> None:
        # SQLite's temporary database: private, deleted by itself, in memory only as far as its cache reaches.
        self._db = sqlite3.connect("", check_same_thread=False, isolation_level=None)
        self._db.execute(f"PRAGMA cache_size=-{_CACHE_KIB}")
        self._db.execute("PRAGMA synchronous=OFF")
        self._db.execute("CREATE TABLE live (digest BLOB PRIMARY KEY) WITHOUT ROWID")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._db.close()

    def __len__(self) -> int:
        return int(self._db.execute("SELECT count(*) FROM live").fetchone()[0])

    def add(self, digests: Iterable[bytes]) -> None:
        """Add digests; those that are in it already change nothing. Raises StoreFull."""
        with exclusive(self._db, "the live blocks don't fit it") as db:
            db.executemany("INSERT OR IGNORE INTO live VALUES (?)", ((digest,) for digest in digests))

    def among(self, digests: Sequence[bytes]) -> set[bytes]:
        """Which of these digests are in it."""
        found: set[bytes] = set()
        for start in range(0, len(digests), _CHUNK):
            chunk = digests[start : start + _CHUNK]
            marks = ",".join("?" * len(chunk))
            query = f"SELECT digest FROM live WHERE digest IN ({marks})"  # noqa: S608
            found.update(row[0] for row in self._db.execute(query, chunk))
        return found
