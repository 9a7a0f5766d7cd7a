"""The index of a local store: digest → pack, offset, length. SQLite in WAL mode, every commit synced."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import RLock
from typing import NamedTuple

from everlease.store.sqlite import exclusive

_SCHEMA = """
CREATE TABLE IF NOT EXISTS block (
    digest BLOB PRIMARY KEY, pack INTEGER NOT NULL, offset INTEGER NOT NULL, length INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS block_by_pack ON block (pack, offset);
"""
_CHUNK = 500


class Location(NamedTuple):
    """Where a block's bytes are."""

    pack: int
    offset: int
    length: int


class PackIndex:
    """Block locations. Thread-safe; a call that changes something is durable when it returns."""

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        self._lock = RLock()
        target = f"file:{path}?mode=ro" if read_only else f"file:{path}"
        self._db = sqlite3.connect(target, uri=True, check_same_thread=False, isolation_level=None, timeout=30)
        try:
            if not read_only:
                self._db.execute("PRAGMA journal_mode=WAL")
                self._db.execute("PRAGMA synchronous=FULL")
                self._db.executescript(_SCHEMA)
            self._db.execute("SELECT count(*) FROM (SELECT 1 FROM block LIMIT 1)").fetchone()
        except sqlite3.DatabaseError:
            self._db.close()
            raise

    def find(self, digests: Sequence[bytes]) -> dict[bytes, Location]:
        """Locations of those digests that are indexed."""
        found: dict[bytes, Location] = {}
        for start in range(0, len(digests), _CHUNK):
            chunk = digests[start : start + _CHUNK]
            marks = ",".join("?" * len(chunk))
            query = f"SELECT digest, pack, offset, length FROM block WHERE digest IN ({marks})"  # noqa: S608
            with self._lock:
                rows = self._db.execute(query, chunk).fetchall()
            found.update({row[0]: Location(*row[1:]) for row in rows})
        return found

    def add(self, rows: Iterable[tuple[bytes, Location]]) -> None:
        """Insert or move blocks in one transaction. Raises StoreFull and changes nothing."""
        with self._transaction() as db:
            values = ((digest, *place) for digest, place in rows)
            db.executemany("INSERT OR REPLACE INTO block VALUES (?,?,?,?)", values)

    def remove(self, digests: Iterable[bytes]) -> None:
        """Forget blocks in one transaction."""
        with self._transaction() as db:
            db.executemany("DELETE FROM block WHERE digest = ?", ((digest,) for digest in digests))

    def page(self, after: bytes, limit: int) -> list[bytes]:
        """Up to `limit` digests above `after`, ascending."""
        with self._lock:
            rows = self._db.execute("SELECT digest FROM block WHERE digest > ? ORDER BY digest LIMIT ?", (after, limit))
            return [row[0] for row in rows]

    def in_pack(self, pack: int) -> list[tuple[bytes, Location]]:
        """The live blocks of a pack, by offset."""
        with self._lock:
            rows = self._db.execute("SELECT * FROM block WHERE pack = ? ORDER BY offset", (pack,)).fetchall()
        return [(row[0], Location(*row[1:])) for row in rows]

    def packs(self) -> dict[int, tuple[int, int]]:
        """pack → (bytes of live blocks, offset behind the last one)."""
        query = "SELECT pack, sum(length), max(offset + length) FROM block GROUP BY pack"
        with self._lock:
            rows = self._db.execute(query).fetchall()
        return {row[0]: (row[1], row[2]) for row in rows}

    def totals(self) -> tuple[int, int]:
        """(number of blocks, their bytes)."""
        with self._lock:
            row = self._db.execute("SELECT count(*), coalesce(sum(length), 0) FROM block").fetchone()
        return int(row[0]), int(row[1])

    def close(self) -> None:
        """Close the database."""
        with self._lock:
            self._db.close()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock, exclusive(self._db, "its index can't grow") as db:
            yield db
