"""The mirror's repository: blocks, events, derived rows and cursor move together in the caller's transaction.

A derived row is a mapping of its columns. Before a block that is not final first changes a row, the row's old image is
kept in ``idx_undo``; rolling back puts the oldest image of each row back. Undo rows go when their block is final.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from psycopg import sql
from psycopg.adapt import Loader
from sqlalchemy import delete, func, inspect, select, text, update
from sqlalchemy.dialects.postgresql import insert as upsert

from everlease.db import totals
from everlease.db.copy import NULL, copy_lines, copy_rows, json_text
from everlease.db.engine import Tx, driver_connection
from everlease.db.models.base import Base
from everlease.db.models.mirror import (
    BlockRow,
    ClaimableRow,
    CursorRow,
    EscrowRow,
    EventRow,
    LeaseRow,
    NodeAuthRow,
    PaymentRow,
    ProviderRow,
    SlashRow,
    TotalsRow,
    UndoRow,
)
from everlease.db.outbox import emit_all
from everlease.domain.mirrored import MirroredBlock, MirroredEvent

Row = Mapping[str, Any]
Image = tuple[int, str, str, Row | None]
"""(block, table, key, the row's columns before that block first changed it, or None)."""

_DERIVED: dict[str, type[Base]] = {
    row.__tablename__: row
    for row in (LeaseRow, EscrowRow, ProviderRow, NodeAuthRow, ClaimableRow, SlashRow, PaymentRow)
}
_CURSOR_ID = 1


class CursorMoved(Exception):
    """Another indexer moved the cursor meanwhile; nothing was written."""

    retryable = True


def _key(table: str) -> str:
    """Name of a derived table's one key column."""
    return str(inspect(_DERIVED[table]).primary_key[0].name)


def cursor(tx: Tx) -> CursorRow | None:
    """Where the mirror stands."""
    return tx.get(CursorRow, _CURSOR_ID)


def start(tx: Tx, chain_id: int, genesis_hash: str, escrow: str, staking: str, block: MirroredBlock) -> None:
    """Put the cursor on the block before the first one of interest; does nothing if there is a cursor."""
    position = {"block_number": block.number, "block_hash": block.hash, "block_time": block.timestamp}
    tx.execute(
        upsert(CursorRow)
        .values(id=_CURSOR_ID, chain_id=chain_id, genesis_hash=genesis_hash, escrow=escrow, staking=staking, **position)
        .values(final_number=block.number, head_number=block.number, reorgs=0, halted="")
        .on_conflict_do_nothing()
    )
    header = {"number": block.number, "hash": block.hash, "parent_hash": block.parent_hash}
    tx.execute(upsert(BlockRow).values(**header, timestamp=block.timestamp, events=0).on_conflict_do_nothing())


def lock(tx: Tx, number: int, block_hash: str) -> CursorRow:
    """Lock the cursor, which must be at this block; raises CursorMoved.

    The commit won't wait for the disk: what a power cut takes, it takes with the cursor, and it is read again.
    """
    tx.execute(text("SET LOCAL synchronous_commit = off"))
    row = tx.scalar(select(CursorRow).where(CursorRow.id == _CURSOR_ID).with_for_update())
    if row is None or (row.block_number, row.block_hash) != (number, block_hash):
        raise CursorMoved("another indexer moved the cursor; this step is dropped")
    return row


def load(tx: Tx, table: str, keys: Collection[str]) -> dict[str, Row]:
    """The columns of those of these derived rows that exist, by key."""
    columns, key = _DERIVED[table].__table__.columns.keys(), _key(table)
    statement = sql.SQL("SELECT {} FROM {} WHERE {} = ANY(%s)").format(
        sql.SQL(", ").join(map(sql.Identifier, columns)), sql.Identifier(table), sql.Identifier(key)
    )
    place = columns.index(key)
    with driver_connection(tx).cursor() as cursor:
        cursor.adapters.register_loader("numeric", _WholeNumber)
        found = cursor.execute(statement, (list(keys),))
        return {row[place]: dict(zip(columns, row, strict=True)) for row in found}


def apply(
    tx: Tx,
    blocks: Sequence[MirroredBlock],
    events: Sequence[MirroredEvent],
    rows: Mapping[tuple[str, str], Row],
    images: Sequence[Image],
) -> None:
    """Write blocks, their events and the rows they led to, and tell the outbox. The cursor must be locked.

    ``images``: what undoes each of ``blocks`` that may still be reorganised; none where all are final.
    """
    counts: dict[int, int] = {}
    for event in events:
        counts[event.block_number] = counts.get(event.block_number, 0) + 1
    headers = ((b.number, b.hash, b.parent_hash, b.timestamp, counts.get(b.number, 0)) for b in blocks)
    copy_rows(tx, BlockRow, ("number", "hash", "parent_hash", "timestamp", "events"), headers)
    copy_lines(tx, EventRow, MirroredEvent._fields, map(_event_line, events))
    copy_rows(tx, UndoRow, ("block_number", "table", "key", "before"), images)
    _store(tx, rows)
    emit_all(tx, [(f"chain.{event.name}", event.payload) for event in events])


def advance(tx: Tx, row: CursorRow, block: MirroredBlock, *, head: int, final: int) -> None:
    """Move the locked cursor and forget what finality made needless."""
    settled = min(row.final_number, row.block_number)
    row.block_number, row.block_hash, row.block_time = block.number, block.hash, block.timestamp
    row.head_number, row.final_number = head, max(row.final_number, final)
    row.updated_at = func.clock_timestamp()
    _forget_settled(tx, settled, min(row.final_number, block.number))


def observe(tx: Tx, row: CursorRow, *, head: int, final: int) -> None:
    """Note the chain's head where there is nothing to apply; finality never goes back. The cursor must be locked."""
    settled = min(row.final_number, row.block_number)
    row.head_number, row.final_number = head, max(row.final_number, min(final, row.block_number))
    row.updated_at = func.clock_timestamp()
    _forget_settled(tx, settled, min(row.final_number, row.block_number))


def _forget_settled(tx: Tx, before: int, now: int) -> None:
    """Final blocks need no undo rows, and those without events no row; up to ``before`` that was done already."""
    if now > before:
        tx.execute(delete(UndoRow).where(UndoRow.block_number <= now))
        empty = (BlockRow.number >= before, BlockRow.number < now, BlockRow.events == 0)
        tx.execute(delete(BlockRow).where(*empty))


def blocks_down_from(tx: Tx, number: int, limit: int) -> list[MirroredBlock]:
    """Applied blocks at or below ``number``, newest first."""
    rows = tx.scalars(select(BlockRow).where(BlockRow.number <= number).order_by(BlockRow.number.desc()).limit(limit))
    return [MirroredBlock(row.number, row.hash, row.parent_hash, row.timestamp) for row in rows]


def roll_back(tx: Tx, row: CursorRow, ancestor: MirroredBlock) -> int:
    """Undo every block above ``ancestor`` under the locked cursor; returns how many events were taken back.

    Each leaves as ``chain.reverted``, newest first.
    """
    above = select(EventRow).where(EventRow.block_number > ancestor.number)
    taken = tx.scalars(above.order_by(EventRow.block_number.desc(), EventRow.log_index.desc())).all()
    undo = select(UndoRow).where(UndoRow.block_number > ancestor.number).order_by(UndoRow.block_number.desc())
    _store(tx, {(image.table, image.key): image.before for image in tx.scalars(undo)})
    emit_all(tx, [("chain.reverted", _event(event).payload) for event in taken])
    tx.execute(delete(UndoRow).where(UndoRow.block_number > ancestor.number))
    tx.execute(delete(EventRow).where(EventRow.block_number > ancestor.number))
    tx.execute(delete(BlockRow).where(BlockRow.number > ancestor.number))
    row.block_number, row.block_hash, row.block_time = ancestor.number, ancestor.hash, ancestor.timestamp
    row.reorgs += 1
    row.updated_at = func.clock_timestamp()
    return len(taken)


def halt(tx: Tx, reason: str) -> None:
    """Stop here until somebody decides; ``reason`` says what to do."""
    tx.execute(update(CursorRow).where(CursorRow.id == _CURSOR_ID).values(halted=reason))


def resume(tx: Tx) -> None:
    """Go on after a halt whose cause is gone; where it is not, the indexer halts again."""
    tx.execute(update(CursorRow).where(CursorRow.id == _CURSOR_ID).values(halted=""))


def clear(tx: Tx) -> None:
    """Forget the whole mirror, so that the indexer reads the chain again from the deployment's block."""
    kinds: tuple[type[Base], ...] = (*_DERIVED.values(), TotalsRow, UndoRow, EventRow, BlockRow, CursorRow)
    for kind in kinds:
        tx.execute(delete(kind))


def _store(tx: Tx, rows: Mapping[tuple[str, str], Row | None]) -> None:
    """Put whole rows in place of those with their keys; None takes the row away. The totals follow."""
    change: Counter[str] = Counter()
    by_table: dict[str, dict[str, Row | None]] = {}
    for (table, key), row in rows.items():
        by_table.setdefault(table, {})[key] = row
    for table, values in by_table.items():
        kind = _DERIVED[table]
        gone = delete(kind).where(inspect(kind).primary_key[0] == func.any(list(values)))
        change.subtract(totals.removed(tx, table, gone))
        stored = [row for row in values.values() if row is not None]
        change.update(totals.of(table, stored))
        if stored:
            columns = tuple(stored[0])
            copy_rows(tx, kind, columns, (tuple(row[name] for name in columns) for row in stored))
    totals.add(tx, change)


def _event_line(event: MirroredEvent) -> str:
    """An event as a line for COPY: all but its arguments are numbers, names and hex, which need no escape."""
    block, index, block_hash, block_time, tx_hash, address, name, args, job_id, lease_id, parties = event
    return (
        f"{block}\t{index}\t{block_hash}\t{block_time}\t{tx_hash}\t{address}\t{name}\t{json_text(args)}\t"
        f"{job_id or NULL}\t{lease_id or NULL}\t{json_text(parties)}\n"
    )


class _WholeNumber(Loader):
    """NUMERIC(78, 0) as int, without a Decimal between."""

    def load(self, data: Any) -> int:
        return int(bytes(data))


def _event(row: EventRow) -> MirroredEvent:
    values = {name: getattr(row, name) for name in MirroredEvent._fields}
    return MirroredEvent(**values | {"parties": tuple(row.parties)})
