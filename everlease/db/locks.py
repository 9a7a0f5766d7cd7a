"""Locks that end with the process that holds them: advisory locks of a PostgreSQL session of their own."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg

from everlease.db.engine import Database, DatabaseUnavailable


@contextmanager
def try_lock(database: Database, key: int | str) -> Iterator[psycopg.Connection[Any] | None]:
    """The session that holds the lock until the block ends, None where another process has it.

    Raises DatabaseUnavailable.
    """
    number = "%s" if isinstance(key, int) else "hashtextextended(%s, 0)"
    try:
        connection = psycopg.connect(database.libpq_url, autocommit=True, connect_timeout=5)
    except psycopg.OperationalError as error:
        raise _unavailable(error) from error
    with connection:
        try:
            found = connection.execute(f"SELECT pg_try_advisory_lock({number})".encode(), (key,)).fetchone()
        except psycopg.OperationalError as error:
            raise _unavailable(error) from error
        yield connection if found and found[0] else None


def _unavailable(error: psycopg.OperationalError) -> DatabaseUnavailable:
    return DatabaseUnavailable(str(error).split("\n")[0])
