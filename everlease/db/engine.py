"""One engine per process; a transaction is a ``with`` block that commits at its end or leaves nothing behind."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DataError, OperationalError, ProgrammingError
from sqlalchemy.orm import Session, sessionmaker

Tx = Session
"""What repositories take. Network calls don't belong between its begin and its end."""


class DatabaseUnavailable(Exception):
    """PostgreSQL can't be reached, went away mid-transaction or is not migrated; nothing was committed."""

    retryable = True


class ValueRefused(Exception):
    """PostgreSQL can't hold a value: a number out of range, a character that text lacks."""

    retryable = False


def driver_connection(tx: Tx) -> psycopg.Connection[Any]:
    """psycopg's connection under a transaction, for what SQLAlchemy lacks or is slow at."""
    found = tx.connection().connection.driver_connection
    assert isinstance(found, psycopg.Connection)
    return found


@contextmanager
def savepoint(tx: Tx) -> Iterator[None]:
    """What the block wrote is undone alone when it raises; the transaction goes on. Raises ValueRefused."""
    try:
        with tx.begin_nested():
            yield
    except DataError as error:
        raise ValueRefused(str(error.orig).strip().split("\n")[0]) from error


class Database:
    """A connection pool for ``url`` (``postgresql+psycopg://…``). Connects on first use, not at import."""

    def __init__(self, url: str, *, pool_size: int = 10) -> None:
        self.url = url
        self._engine = create_engine(url, pool_size=pool_size, max_overflow=pool_size, pool_pre_ping=True)
        self._sessions = sessionmaker(self._engine, expire_on_commit=False)

    @contextmanager
    def transaction(self, *, serializable: bool = False) -> Iterator[Tx]:
        """Begin, yield, commit; roll back on any error.

        Raises DatabaseUnavailable where the server is gone or can't serve now, as with a full disk or before its
        migration.
        """
        try:
            with self._sessions() as session, session.begin():
                if serializable:
                    session.connection(execution_options={"isolation_level": "SERIALIZABLE"})
                yield session
        except (OperationalError, psycopg.OperationalError) as error:
            # The driver's own where it is used without SQLAlchemy, as for COPY.
            said = error.orig if isinstance(error, OperationalError) else error
            raise DatabaseUnavailable(str(said).strip().split("\n")[0]) from error
        except (ProgrammingError, psycopg.errors.UndefinedTable) as error:
            said = error.orig if isinstance(error, ProgrammingError) else error
            if not isinstance(said, psycopg.errors.UndefinedTable):
                raise
            raise DatabaseUnavailable("the database is not migrated") from error

    def ping(self) -> None:
        """Raise DatabaseUnavailable unless the server answers."""
        with self.transaction() as tx:
            tx.execute(text("SELECT 1"))

    def close(self) -> None:
        """Close every pooled connection."""
        self._engine.dispose()

    @property
    def libpq_url(self) -> str:
        """The same database for psycopg itself (LISTEN/NOTIFY)."""
        return self.url.replace("postgresql+psycopg://", "postgresql://", 1)
