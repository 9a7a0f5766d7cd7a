"""Which blocks an upload session holds on to, and which are condemned. SQLite, so that a restart forgets neither."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import RLock

from everlease.store.errors import StoreFull
from everlease.store.live_set import LiveSet
from everlease.store.sqlite import exclusive

_SCHEMA = """
CREATE TABLE IF NOT EXISTS pin (
    digest BLOB NOT NULL, session TEXT NOT NULL, expires REAL NOT NULL, PRIMARY KEY (digest, session)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS pin_by_expiry ON pin (expires);
CREATE TABLE IF NOT EXISTS session (name TEXT PRIMARY KEY, bytes INTEGER NOT NULL, expires REAL NOT NULL);
CREATE TABLE IF NOT EXISTS condemned (digest BLOB PRIMARY KEY, since REAL NOT NULL) WITHOUT ROWID;
"""
_PAGE = 1000
_PINNED = "EXISTS (SELECT 1 FROM pin WHERE pin.digest = condemned.digest AND pin.expires > ?)"


class SessionLedger:
    """Pins and condemnations by block digest; all times are unix seconds. Thread-safe. `path` None keeps it in memory.

    Commits survive a kill. A power cut may lose the last pins: gc's grace, longer than any session, covers for that.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._lock = RLock()
        self._db = sqlite3.connect(path or ":memory:", check_same_thread=False, isolation_level=None, timeout=30)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=NORMAL")
        self._db.executescript(_SCHEMA)

    def pin(self, session: str, digests: Iterable[bytes], expires: float) -> None:
        """Hold blocks, present or not, until `expires`; they are no longer condemned."""
        rows = list(digests)
        with self._transaction() as db:
            db.executemany(
                "INSERT INTO pin VALUES (?,?,?) ON CONFLICT DO UPDATE SET expires = max(expires, excluded.expires)",
                ((digest, session, expires) for digest in rows),
            )
            db.executemany("DELETE FROM condemned WHERE digest = ?", ((digest,) for digest in rows))

    def charge(self, session: str, size: int, quota: int, expires: float) -> None:
        """Add `size` bytes to a session's uploads. Raises StoreFull, and adds nothing, above `quota`."""
        with self._transaction() as db:
            row = db.execute("SELECT bytes FROM session WHERE name = ?", (session,)).fetchone()
            used = (row[0] if row else 0) + size
            if used > quota:
                raise StoreFull(f"this upload session may store {quota} bytes and would reach {used}")
            db.execute(
                "INSERT INTO session VALUES (?,?,?) ON CONFLICT DO UPDATE SET bytes = ?, expires = max(expires, ?)",
                (session, used, expires, used, expires),
            )

    def condemn(self, digests: Iterable[bytes], now: float) -> None:
        """Condemn blocks that no session holds; those already condemned keep their time."""
        with self._transaction() as db:
            db.executemany(
                "INSERT OR IGNORE INTO condemned SELECT ?1, ?2"
                " WHERE NOT EXISTS (SELECT 1 FROM pin WHERE digest = ?1 AND expires > ?2)",
                ((digest, now) for digest in digests),
            )

    def pardon(self, live: LiveSet) -> None:
        """Take reachable blocks off the condemned list."""
        after = b""
        while page := self._condemned_after(after):
            after = page[-1]
            with self._transaction() as db:
                gone = ((digest,) for digest in live.among(page))
                db.executemany("DELETE FROM condemned WHERE digest = ?", gone)

    def condemned(self) -> int:
        """How many blocks are condemned."""
        with self._lock:
            return int(self._db.execute("SELECT count(*) FROM condemned").fetchone()[0])

    def _condemned_after(self, digest: bytes) -> list[bytes]:
        query = "SELECT digest FROM condemned WHERE digest > ? ORDER BY digest LIMIT ?"
        with self._lock:
            return [row[0] for row in self._db.execute(query, (digest, _PAGE))]

    @contextmanager
    def executing(self, now: float, before: float, limit: int) -> Iterator[list[bytes]]:
        """Blocks condemned until `before` and not held, at most `limit`; while the caller deletes them nobody can pin.

        They leave the list when the body ends without an error.
        """
        query = f"SELECT digest FROM condemned WHERE since <= ? AND NOT {_PINNED} LIMIT ?"  # noqa: S608
        with self._transaction() as db:
            digests = [row[0] for row in db.execute(query, (before, now, limit))]
            yield digests
            db.executemany("DELETE FROM condemned WHERE digest = ?", ((digest,) for digest in digests))

    def expire(self, now: float) -> None:
        """Drop pins and sessions that have ended."""
        with self._transaction() as db:
            db.execute("DELETE FROM pin WHERE expires <= ?", (now,))
            db.execute("DELETE FROM session WHERE expires <= ?", (now,))

    def close(self) -> None:
        """Close the database."""
        with self._lock:
            self._db.close()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock, exclusive(self._db, "pins can't be recorded") as db:
            yield db
