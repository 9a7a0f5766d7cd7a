"""Keyset pages over large tables: every query walks an index from where the page before ended, whatever the size.

A walk may be split: an index on (a, b, key) gives the rows of one ``a`` in the key's order only together with ``b``, so
without a wish for ``b`` the part of each known ``b`` is walked and the heads are merged.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ColumnElement, Select, Text, func, literal, select, text, true, tuple_, union_all
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.exc import DataError
from sqlalchemy.orm import InstrumentedAttribute

from everlease.db.engine import Database, Tx, ValueRefused
from everlease.db.models.base import Base

MAX_PAGE = 200
Row = dict[str, Any]
After = tuple[Any, ...] | None
"""Key of the last row of the page before."""
Column = InstrumentedAttribute[Any]


_WALK = text(
    "SELECT set_config('transaction_read_only', 'on', true), set_config('enable_seqscan', 'off', true),"
    " set_config('enable_bitmapscan', 'off', true)"
)


@dataclass(frozen=True, slots=True)
class Page:
    """Rows, and the key to ask for the next page with (None at the end)."""

    items: list[Row]
    next: After


@dataclass(frozen=True, slots=True)
class Walk:
    """Rows with these values; ``each`` is a column of few values and those to walk one by one."""

    where: Mapping[Column, Any] = field(default_factory=dict)
    each: tuple[Column, Sequence[str]] | None = None


@contextmanager
def walking(database: Database) -> Iterator[Tx]:
    """A read-only transaction in which PostgreSQL walks indexes, whatever its statistics say.

    Without statistics (after a rebuild) or with old ones (a party that became busy) it would collect all matches and
    sort them. Where no index fits it does so still. Raises ValueRefused for what no row can hold.
    """
    try:
        with database.transaction() as tx:
            tx.execute(_WALK)
            yield tx
    except DataError as error:
        raise ValueRefused(str(error.orig).strip().split("\n")[0]) from error


def page(tx: Tx, kind: type[Base], key: Sequence[Column], walks: Sequence[Walk], *, after: After, limit: int) -> Page:
    """Rows of the walks, which must not overlap, below ``after`` by ``key``, descending.

    Each walk needs an index on its ``where``, ``each`` and ``key`` columns in this order.
    """
    limit = max(1, min(limit, MAX_PAGE))
    # One row more than asked tells whether there is a next page.
    found = [dict(row) for row in tx.execute(_statement(kind, key, walks, after, limit + 1)).mappings()]
    items = found[:limit]
    return Page(items, tuple(items[-1][column.key] for column in key) if len(found) > limit else None)


def columns(kind: type[Base]) -> list[ColumnElement[Any]]:
    """What a table's rows say to people: all but what PostgreSQL computes for indexes."""
    return [column for column in kind.__table__.columns if column.computed is None]


def _statement(kind: type[Base], key: Sequence[Column], walks: Sequence[Walk], after: After, limit: int) -> Select[Any]:
    if len(walks) == 1 and walks[0].each is None:
        return _along(select(*columns(kind)), walks[0].where, key, after, limit)
    heads = union_all(*(_heads(walk, key, after, limit) for walk in walks)).subquery("heads")
    first = select(heads).order_by(*(heads.c[column.key].desc() for column in key)).limit(limit).subquery("first")
    # LIMIT keeps the planner from any join but the look-up of each key.
    found = select(*columns(kind)).where(tuple_(*key) == tuple_(*first.c)).limit(1).lateral("found")
    return select(*found.c).select_from(first).join(found, true()).order_by(*(found.c[c.key].desc() for c in key))


def _heads(walk: Walk, key: Sequence[Column], after: After, limit: int) -> Select[Any]:
    """The newest keys of each part of a walk."""
    if walk.each is None:
        return select(*_along(select(*key), walk.where, key, after, limit).subquery().c)
    column, values = walk.each
    part = func.unnest(literal(list(values), ARRAY(Text))).table_valued("value").render_derived()
    heads = _along(select(*key), {**walk.where, column: part.c.value}, key, after, limit).lateral()
    return select(*heads.c).select_from(part).join(heads, true())


def _along(
    wanted: Select[Any], where: Mapping[Column, Any], key: Sequence[Column], after: After, limit: int
) -> Select[Any]:
    """One index from its end down to a page's length.

    An equality would be a constant to the planner, which then finds the order of ``key`` in another index too and may
    search that one for rows that match: quick where they are many and new, endless where they are old. So ``where`` is
    said as a range, and the order names its columns: only the index made for this walk has it.
    """
    fixed, values = list(where), list(where.values())
    order = [*fixed, *key]
    if fixed:
        wanted = wanted.where(tuple_(*fixed) >= tuple_(*values))
        wanted = wanted.where(*(column.is_not(None) for column in fixed if column.property.columns[0].nullable))
    if after is not None:
        wanted = wanted.where(tuple_(*order) < tuple_(*values, *after))
    elif fixed:
        wanted = wanted.where(tuple_(*fixed) <= tuple_(*values))
    return wanted.order_by(*(column.desc() for column in order)).limit(limit)
