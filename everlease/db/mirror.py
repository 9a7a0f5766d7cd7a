"""The mirror's repository: blocks, events, derived rows and cursor move together in the caller's transaction.

A derived row is a mapping of its columns. Before a block that is not final first changes a row, the row's old image is
kept in ``idx_undo``; rolling back puts the images back, newest block first. Undo rows go when their block is final.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import delete, func, insert, inspect, select, update
from sqlalchemy.dialects.postgresql import insert as upsert

from everlease.db.engine import Tx
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
    UndoRow,
)
from everlease.db.outbox import emit_all
from everlease.domain.mirrored import MirroredBlock, MirroredEvent

Row = Mapping[str, Any]

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


def start(tx: Tx, chain_id: int, escrow: str, staking: str, block: MirroredBlock) -> None:
    """Put the cursor on the block before the first one of interest; does nothing if there is a cursor."""
    position = {"block_number": block.number, "block_hash": block.hash, "block_time": block.timestamp}
    tx.execute(
        upsert(CursorRow)
        .values(id=_CURSOR_ID, chain_id=chain_id, escrow=escrow, staking=staking, **position)
        .values(final_number=block.number, head_number=block.number, reorgs=0, halted="")
        .on_conflict_do_nothing()
    )
    header = {"number": block.number, "hash": block.hash, "parent_hash": block.parent_hash}
    tx.execute(upsert(BlockRow).values(**header, timestamp=block.timestamp, events=0).on_conflict_do_nothing())


def lock(tx: Tx, number: int, block_hash: str) -> CursorRow:
    """Lock the cursor, which must be at this block; raises CursorMoved."""
    row = tx.scalar(select(CursorRow).where(CursorRow.id == _CURSOR_ID).with_for_update())
    if row is None or (row.block_number, row.block_hash) != (number, block_hash):
        raise CursorMoved("another indexer moved the cursor; this step is dropped")
    return row


def load(tx: Tx, table: str, key: str) -> Row | None:
    """A derived row's columns, or None."""
    columns = _DERIVED[table].__table__
    found = tx.execute(select(columns).where(columns.c[_key(table)] == key)).mappings().one_or_none()
    return None if found is None else dict(found)


def apply(
    tx: Tx,
    blocks: Sequence[MirroredBlock],
    events: Sequence[MirroredEvent],
    rows: Mapping[tuple[str, str], Row],
    before: Mapping[tuple[str, str], Row | None] | None,
) -> None:
    """Write blocks, their events and the rows they led to, and tell the outbox. The cursor must be locked.

    ``before`` holds the rows' old images where ``blocks`` is one block that may still be reorganised, else None.
    """
    counts: dict[int, int] = {}
    for event in events:
        counts[event.block_number] = counts.get(event.block_number, 0) + 1
    tx.execute(
        insert(BlockRow),
        [
            {"number": b.number, "hash": b.hash, "parent_hash": b.parent_hash, "timestamp": b.timestamp}
            | {"events": counts.get(b.number, 0)}
            for b in blocks
        ],
    )
    if events:
        tx.execute(insert(EventRow), [_event_values(event) for event in events])
    if before is not None:
        _keep_images(tx, blocks[-1].number, before)
    _store(tx, rows)
    emit_all(tx, [(f"chain.{event.name}", event.payload) for event in events])


def advance(tx: Tx, row: CursorRow, block: MirroredBlock, *, head: int, final: int) -> None:
    """Move the locked cursor and forget what finality made needless."""
    row.block_number, row.block_hash, row.block_time = block.number, block.hash, block.timestamp
    row.head_number = head
    row.updated_at = func.clock_timestamp()
    if final > row.final_number:
        row.final_number = final
        tx.execute(delete(UndoRow).where(UndoRow.block_number <= final))
        tx.execute(delete(BlockRow).where(BlockRow.number < min(final, block.number), BlockRow.events == 0))


def observe(tx: Tx, *, head: int, final: int) -> None:
    """Note the chain's head where there is nothing to apply; finality never goes back."""
    tx.execute(
        update(CursorRow)
        .where(CursorRow.id == _CURSOR_ID)
        .values(
            head_number=head,
            final_number=func.greatest(CursorRow.final_number, func.least(final, CursorRow.block_number)),
            updated_at=func.clock_timestamp(),
        )
    )


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
    for image in tx.scalars(undo).all():
        kind = _DERIVED[image.table]
        if image.before is None:
            tx.execute(delete(kind).where(inspect(kind).primary_key[0] == image.key))
        else:
            _store(tx, {(image.table, image.key): image.before})
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


def clear(tx: Tx) -> None:
    """Forget the whole mirror, so that the indexer reads the chain again from the deployment's block."""
    kinds: tuple[type[Base], ...] = (*_DERIVED.values(), UndoRow, EventRow, BlockRow, CursorRow)
    for kind in kinds:
        tx.execute(delete(kind))


def _store(tx: Tx, rows: Mapping[tuple[str, str], Row]) -> None:
    by_table: dict[str, list[Row]] = {}
    for (table, _), row in rows.items():
        by_table.setdefault(table, []).append(row)
    for table, values in by_table.items():
        statement = upsert(_DERIVED[table])
        changed = {name: statement.excluded[name] for name in values[0] if name != _key(table)}
        tx.execute(statement.on_conflict_do_update(index_elements=[_key(table)], set_=changed), values)


def _keep_images(tx: Tx, number: int, before: Mapping[tuple[str, str], Row | None]) -> None:
    images = [
        {"block_number": number, "table": table, "key": key, "before": None if row is None else dict(row)}
        for (table, key), row in before.items()
    ]
    if images:
        tx.execute(insert(UndoRow), images)


def _event_values(event: MirroredEvent) -> dict[str, Any]:
    return {
        "block_number": event.block_number,
        "log_index": event.log_index,
        "block_hash": event.block_hash,
        "block_time": event.block_time,
        "tx_hash": event.tx_hash,
        "address": event.address,
        "name": event.name,
        "args": event.args,
        "job_id": event.job_id,
        "lease_id": event.lease_id,
        "parties": list(event.parties),
    }


def _event(row: EventRow) -> MirroredEvent:
    return MirroredEvent(
        row.block_number,
        row.log_index,
        row.block_hash,
        row.block_time,
        row.tx_hash,
        row.address,
        row.name,
        row.args,
        row.job_id,
        row.lease_id,
        tuple(row.parties),
    )
