"""COPY, for many rows at once. Format: PostgreSQL's COPY in text, a line per row, tabs between values."""

from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Any

import msgspec
from psycopg import sql

from everlease.db.engine import Tx, driver_connection
from everlease.db.models.base import Base

NULL = "\\N"
_LINES_PER_WRITE = 200
_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})


def copy_rows(tx: Tx, kind: type[Base], columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """COPY rows into a table, in the caller's transaction: several times faster than INSERT, and any number.

    Values are numbers, booleans, strings, None, and for JSON columns dicts, lists and tuples.
    """
    copy_lines(tx, kind, columns, map(_line, rows))


def copy_lines(tx: Tx, kind: type[Base], columns: Sequence[str], lines: Iterable[str]) -> None:
    """``copy_rows`` for rows that are lines of COPY's text format already, each with its line feed."""
    lines = iter(lines)
    part = "".join(islice(lines, _LINES_PER_WRITE))
    if not part:
        return
    statement = sql.SQL("COPY {} ({}) FROM STDIN").format(
        sql.Identifier(kind.__tablename__), sql.SQL(", ").join(map(sql.Identifier, columns))
    )
    with driver_connection(tx).cursor() as cursor, cursor.copy(statement) as copy:
        while part:
            copy.write(part)
            part = "".join(islice(lines, _LINES_PER_WRITE))


def copy_plain(tx: Tx, kind: type[Base], columns: Sequence[str], rows: Iterable[tuple[Any, ...]]) -> None:
    """``copy_rows`` for tables without JSON, at half the price: a row is formatted at once, and looked at only if
    something in it may need more than that."""
    plain = "\t".join(["%s"] * len(columns)) + "\n"
    tabs = len(columns) - 1

    def line(row: tuple[Any, ...]) -> str:
        text = plain % row
        strange = "None" in text or "\\" in text or "\r" in text or text.count("\t") != tabs or text.count("\n") != 1
        return _line(row) if strange else text

    copy_lines(tx, kind, columns, map(line, rows))


def _line(row: Sequence[Any]) -> str:
    return "\t".join([_WRITERS[type(value)](value) for value in row]) + "\n"


def _string(value: str) -> str:
    if "\\" in value or "\n" in value or "\t" in value or "\r" in value:
        return value.translate(_ESCAPES)
    return value


def json_text(value: Any) -> str:
    """A value for a JSON column. JSON escapes control characters itself, so only its backslashes are left to double."""
    return msgspec.json.encode(value).decode().replace("\\", "\\\\")


_WRITERS: dict[type, Callable[[Any], str]] = {
    int: str,
    float: repr,
    bool: lambda value: "t" if value else "f",
    str: _string,
    type(None): lambda value: NULL,
    dict: json_text,
    list: json_text,
    tuple: json_text,
}
