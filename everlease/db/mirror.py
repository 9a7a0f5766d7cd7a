"""The mirror's repository: blocks, events, derived rows and cursor move together in the caller's transaction.

Before a block that is not final first changes a derived row, the row's old image is kept in ``idx_undo``; rolling back
puts the oldest image of each row back. Undo rows go when their block is final.
"""

from collections.abc import Iterable, Sequence

from sqlalchemy import delete, func, select, text, update
from sqlalchemy.dialects.postgresql import insert as upsert

from everlease.db import derived, nodes
from everlease.db.copy import NULL, copy_lines, copy_rows, json_text
from everlease.db.engine import Tx
from everlease.db.models.base import Base
from everlease.db.models.mirror import BlockRow, CursorRow, EventRow, TotalsRow, UndoRow
from everlease.db.outbox import emit_all
from everlease.domain.mirrored import MirroredBlock, MirroredEvent, by_job

Image = tuple[int, str, str, derived.Row | None]
"""(block, table, key, the row's columns before that block first changed it, or None)."""

_CURSOR_ID = 1


class CursorMoved(Exception):
    """Another indexer moved the cursor meanwhile; nothing was written."""

    retryable = True


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


def lines(events: Iterable[MirroredEvent]) -> list[str]:
    """Events as ``apply`` writes them; a pure function, so it may be called long before."""
    return [_line(event) for event in events]


def apply(
    tx: Tx,
    blocks: Sequence[MirroredBlock],
    events: Sequence[MirroredEvent],
    event_lines: Sequence[str],
    changes: Iterable[derived.Change],
    images: Sequence[Image],
) -> None:
    """Write blocks, their events and what these led to, and tell the outbox. The cursor must be locked.

    ``event_lines``: ``lines`` of the events. ``images``: what undoes each of ``blocks`` that may still be reorganised;
    none where all are final.
    """
    counts: dict[int, int] = {}
    for event in events:
        counts[event.block_number] = counts.get(event.block_number, 0) + 1
    headers = ((b.number, b.hash, b.parent_hash, b.timestamp, counts.get(b.number, 0)) for b in blocks)
    copy_rows(tx, BlockRow, ("number", "hash", "parent_hash", "timestamp", "events"), headers)
    copy_lines(tx, EventRow, MirroredEvent._fields, event_lines)
    copy_rows(tx, UndoRow, ("block_number", "table", "key", "before"), images)
    changes = list(changes)
    nodes.can_lock_more(tx, derived.free_stakes(changes))
    derived.store(tx, changes)
    emit_all(tx, [("chain.changed", told) for told in by_job(events)])


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
    """Undo every block above ``ancestor`` under the locked cursor; returns how many events were taken back."""
    above = select(EventRow).where(EventRow.block_number > ancestor.number)
    taken = tx.scalars(above.order_by(EventRow.block_number.desc(), EventRow.log_index.desc())).all()
    undo = select(UndoRow).where(UndoRow.block_number > ancestor.number).order_by(UndoRow.block_number.desc())
    derived.put_back(tx, {(image.table, image.key): image.before for image in tx.scalars(undo)})
    emit_all(tx, [("chain.reverted", told) for told in by_job(map(_event, taken))])
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
    kinds: tuple[type[Base], ...] = (*derived.TABLES.values(), TotalsRow, UndoRow, EventRow, BlockRow, CursorRow)
    for kind in kinds:
        tx.execute(delete(kind))


def _line(event: MirroredEvent) -> str:
    """An event as a line for COPY: all but its arguments are numbers, names and hex, which need no escape."""
    block, index, block_hash, block_time, tx_hash, address, name, args, job_id, lease_id, parties = event
    return (
        f"{block}\t{index}\t{block_hash}\t{block_time}\t{tx_hash}\t{address}\t{name}\t{json_text(args)}\t"
        f"{job_id or NULL}\t{lease_id or NULL}\t{json_text(parties)}\n"
    )


def _event(row: EventRow) -> MirroredEvent:
    values = {name: getattr(row, name) for name in MirroredEvent._fields}
    return MirroredEvent(**values | {"parties": tuple(row.parties)})
