"""Totals over the mirror's derived rows, kept in the transaction that changes the rows so that nobody counts them.

Whoever replaces rows adds what ``of`` the new ones says and takes away what the ``removed`` ones came to. A roll-back
replaces rows by their old images in the same way, so it needs nothing more.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Delete, Select, func, select
from sqlalchemy.dialects.postgresql import insert as upsert

from everlease.db.engine import Tx
from everlease.db.models.mirror import TotalsRow
from everlease.domain.lease import LeaseState

LEASES = "leases_"
"""What the totals of lease states begin with."""
_ID = 1


@dataclass(frozen=True, slots=True)
class _Total:
    """A sum of ``column`` over a table's rows, or their number; ``only`` over those with this value in this column."""

    table: str
    column: str | None = None
    only: tuple[str, Any] | None = None


_TOTALS = {
    "jobs": _Total("escrow"),
    **{
        LEASES + state.lower(): _Total("lease", only=("state", state.value))
        for state in LeaseState
        if state is not LeaseState.NONE
    },
    "providers": _Total("provider"),
    "nodes": _Total("node_auth", only=("active", True)),
    "staked": _Total("provider", "staked"),
    "locked": _Total("provider", "locked"),
    "slashed": _Total("provider", "slashed"),
    "escrowed": _Total("escrow", "balance"),
    "reserved": _Total("escrow", "reserved"),
    "deposited": _Total("escrow", "deposited"),
    "paid": _Total("escrow", "paid"),
    "claimable": _Total("claimable", "amount"),
    "withdrawn": _Total("claimable", "withdrawn"),
}
_OF_TABLE = {
    table: {name: total for name, total in _TOTALS.items() if total.table == table}
    for table in {total.table for total in _TOTALS.values()}
}


def of(table: str, columns: Sequence[str], rows: Collection[Sequence[Any]]) -> dict[str, int]:
    """What these rows of ``table`` come to, by total; ``columns`` names their values."""
    found = {}
    for name, total in _OF_TABLE.get(table, {}).items() if rows else ():
        counted = rows
        if total.only is not None:
            place, wanted = columns.index(total.only[0]), total.only[1]
            counted = [row for row in rows if row[place] == wanted]
        if total.column is None:
            found[name] = len(counted)
        else:
            place = columns.index(total.column)
            found[name] = sum([row[place] for row in counted])
    return found


Removal = Delete | Select[Any]
"""A statement that deletes the rows under ``:keys``, and says what they came to if totals count that table."""


def removal(table: str, delete: Delete) -> Removal:
    """``delete``, summed up by PostgreSQL."""
    wanted = _OF_TABLE.get(table)
    if wanted is None:
        return delete
    columns = {name for total in wanted.values() for name in (total.column, total.only and total.only[0]) if name}
    source = delete.table.c
    gone = delete.returning(*(source[name] for name in sorted(columns or {next(iter(source)).name}))).cte("gone")
    sums = []
    for name, total in wanted.items():
        value = func.count() if total.column is None else func.coalesce(func.sum(gone.c[total.column]), 0)
        counted = value if total.only is None else value.filter(gone.c[total.only[0]] == total.only[1])
        sums.append(counted.label(name))
    return select(*sums).select_from(gone)


def removed(tx: Tx, table: str, statement: Removal, keys: Collection[str]) -> dict[str, int]:
    """Delete rows of ``table`` by ``removal(table, …)``; returns what they came to."""
    found = tx.execute(statement, {"keys": list(keys)})
    if table not in _OF_TABLE:
        return {}
    return {name: int(value) for name, value in found.mappings().one().items()}


def add(tx: Tx, change: Mapping[str, int]) -> None:
    """Add to the totals."""
    if not any(change.values()):
        return
    row = upsert(TotalsRow).values({"id": _ID, **dict.fromkeys(_TOTALS, 0), **change})
    summed = {name: TotalsRow.__table__.c[name] + row.excluded[name] for name in _TOTALS}
    tx.execute(row.on_conflict_do_update(index_elements=["id"], set_=summed))


def read(tx: Tx) -> dict[str, int]:
    """Every total; zeros where nothing was counted yet."""
    row = tx.get(TotalsRow, _ID)
    return {name: 0 if row is None else int(getattr(row, name)) for name in _TOTALS}
