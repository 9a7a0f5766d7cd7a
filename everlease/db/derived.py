"""The mirror's derived rows: read by key, replaced as a whole. The totals over them follow in the same transaction."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from psycopg import sql
from psycopg.adapt import Loader
from sqlalchemy import bindparam, delete, func, inspect

from everlease.db import totals
from everlease.db.copy import copy_plain
from everlease.db.engine import Tx, driver_connection
from everlease.db.models.base import Base
from everlease.db.models.mirror import (
    ClaimableRow,
    EscrowRow,
    LeaseRow,
    NodeAuthRow,
    PaymentRow,
    ProviderRow,
    SlashRow,
)

Row = Mapping[str, Any]
"""A derived row's columns."""
TABLES: dict[str, type[Base]] = {
    row.__tablename__: row
    for row in (LeaseRow, EscrowRow, ProviderRow, NodeAuthRow, ClaimableRow, SlashRow, PaymentRow)
}


@dataclass(frozen=True, slots=True)
class Change:
    """What becomes of one table: the rows under the keys ``replaced`` go, then ``rows``, whole ones, come."""

    table: str
    columns: Sequence[str]
    rows: Sequence[tuple[Any, ...]]
    replaced: Collection[str]


def load(tx: Tx, table: str, keys: Collection[str]) -> dict[str, Row]:
    """The columns of those of these derived rows that exist, by key."""
    columns, key = TABLES[table].__table__.columns.keys(), _key(table)
    statement = sql.SQL("SELECT {} FROM {} WHERE {} = ANY(%s)").format(
        sql.SQL(", ").join(map(sql.Identifier, columns)), sql.Identifier(table), sql.Identifier(key)
    )
    place = columns.index(key)
    with driver_connection(tx).cursor() as cursor:
        cursor.adapters.register_loader("numeric", _WholeNumber)
        found = cursor.execute(statement, (list(keys),))
        return {row[place]: dict(zip(columns, row, strict=True)) for row in found}


def store(tx: Tx, changes: Iterable[Change]) -> None:
    """Make the changes."""
    moved: Counter[str] = Counter()
    for change in changes:
        if change.replaced:
            moved.subtract(totals.removed(tx, change.table, _removal(change.table), change.replaced))
        moved.update(totals.of(change.table, change.columns, change.rows))
        copy_plain(tx, TABLES[change.table], change.columns, change.rows)
    totals.add(tx, moved)


def free_stakes(changes: Iterable[Change]) -> dict[str, int]:
    """By provider, the stake that no lease has locked (base units), of those that these changes are about."""
    found: dict[str, int] = {}
    for change in changes:
        if change.table == ProviderRow.__tablename__:
            key, staked, locked = map(change.columns.index, ("provider", "staked", "locked"))
            found.update({row[key]: row[staked] - row[locked] for row in change.rows})
    return found


def put_back(tx: Tx, rows: Mapping[tuple[str, str], Row | None]) -> None:
    """Give (table, key) the row that it had before; None takes the row away."""
    by_table: dict[str, dict[str, Row | None]] = {}
    for (table, key), row in rows.items():
        by_table.setdefault(table, {})[key] = row
    changes = []
    for table, values in by_table.items():
        stored = [row for row in values.values() if row is not None]
        columns = tuple(stored[0]) if stored else ()
        changes.append(Change(table, columns, [tuple(row[name] for name in columns) for row in stored], list(values)))
    store(tx, changes)


def _key(table: str) -> str:
    """Name of a derived table's one key column."""
    return str(inspect(TABLES[table]).primary_key[0].name)


@cache
def _removal(table: str) -> totals.Removal:
    kind = TABLES[table]
    return totals.removal(table, delete(kind).where(inspect(kind).primary_key[0] == func.any(bindparam("keys"))))


class _WholeNumber(Loader):
    """NUMERIC(78, 0) as int, without a Decimal between."""

    def load(self, data: Any) -> int:
        return int(bytes(data))
