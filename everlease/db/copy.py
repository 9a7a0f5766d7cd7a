"""COPY, for many rows at once."""

from collections.abc import Iterable, Sequence
from typing import Any

from psycopg import sql

from everlease.db.engine import Tx
from everlease.db.models.base import Base


def copy_rows(tx: Tx, kind: type[Base], columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """COPY rows into a table, in the caller's transaction: several times faster than INSERT, and any number."""
    first = next(rows := iter(rows), None)
    if first is None:
        return
    statement = sql.SQL("COPY {} ({}) FROM STDIN").format(
        sql.Identifier(kind.__tablename__), sql.SQL(", ").join(map(sql.Identifier, columns))
    )
    connection = tx.connection().connection.driver_connection
    assert connection is not None
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        copy.write_row(first)
        for row in rows:
            copy.write_row(row)
