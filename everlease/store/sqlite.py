"""One way to write to the store's SQLite files."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from everlease.store.errors import StoreFull


@contextmanager
def exclusive(db: sqlite3.Connection, when_full: str) -> Iterator[sqlite3.Connection]:
    """A write transaction: committed at the end of the block, or nothing of it. A full disk raises StoreFull.

    The caller holds the connection's lock.
    """
    try:
        db.execute("BEGIN IMMEDIATE")
        yield db
        db.execute("COMMIT")
    except BaseException as error:
        if db.in_transaction:
            db.execute("ROLLBACK")
        if isinstance(error, sqlite3.OperationalError) and "full" in str(error):
            raise StoreFull(f"the store's disk is full: {when_full}") from error
        raise
