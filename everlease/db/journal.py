"""The sender's journal in PostgreSQL (everlease.chain.journal.Journal), and how others put transactions into it."""

import hashlib
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import cast

import psycopg
from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError

from everlease.db.engine import Database, DatabaseUnavailable, Tx
from everlease.db.models.outbox import TxRow
from everlease.db.outbox import emit
from everlease.domain.transactions import (
    IN_FLIGHT,
    OPEN,
    PROVISIONAL,
    FeeOffer,
    JournalTx,
    NonceTaken,
    TxReceipt,
    TxState,
    state_of,
)

_OPEN = sorted(OPEN)
_SOON_MISSED = "-c tcp_keepalives_idle=10 -c tcp_keepalives_interval=5 -c tcp_keepalives_count=4"
"""The server ends the session, and so its lock, of a host that has not answered for 30 s."""


class UnknownTransaction(Exception):
    """No journaled transaction has this id."""

    retryable = False


def enqueue(
    tx: Tx,
    *,
    action_key: str,
    sender: str,
    to: str,
    data: bytes,
    call: str,
    job_id: str | None = None,
    value: int = 0,
    again: bool = False,
) -> int:
    """Journal a transaction in the caller's own database transaction; returns its id.

    A key that is there already is left alone; with ``again`` one that failed is tried anew with the new call data: it
    can have no effect any more, refused before it was signed or reverted in a final block. Emits ``tx.enqueued``.
    """
    row = tx.scalar(select(TxRow).where(TxRow.action_key == action_key).with_for_update())
    if row is not None and not (again and row.state == "failed"):
        return row.id
    if row is None:
        row = TxRow(action_key=action_key, sender=sender.lower(), to=to.lower(), call=call, data="")
        row.attempts = 0
        tx.add(row)
    row.job_id, row.value, row.call, row.to = job_id, value, call, to.lower()
    row.data = "0x" + data.hex()
    row.state, row.error = "journaled", ""
    row.nonce = row.raw = row.tx_hash = row.block_number = row.block_hash = row.mined_at = None
    row.sent_at = row.sent_head = None
    row.hashes = {}
    row.max_fee = 0
    tx.flush()
    emit(tx, "tx.enqueued", {"tx_id": row.id, "action_key": action_key, "job_id": job_id, "sender": row.sender})
    return row.id


def find(tx: Tx, action_key: str) -> TxRow | None:
    """The transaction with this key."""
    return tx.scalar(select(TxRow).where(TxRow.action_key == action_key))


def tries(tx: Tx, job_id: str, action: str) -> list[TxRow]:
    """The transactions of a job by which an action was tried, oldest first: keys are ACTION/0, ACTION/1 and so on."""
    found = select(TxRow).where(TxRow.job_id == job_id, TxRow.action_key.startswith(f"{action}/", autoescape=True))
    return list(tx.scalars(found.order_by(TxRow.id).execution_options(populate_existing=True)))


class PostgresJournal:
    """One row per transaction; each method is its own database transaction. ``clock`` gives unix seconds."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock

    @contextmanager
    def hold(self, sender: str) -> Iterator[bool]:
        """A session's advisory lock on a connection of its own: it ends with the process, however that ends, and half a
        minute after a whole host has gone."""
        number = int.from_bytes(hashlib.sha256(f"everlease.sender:{sender}".encode()).digest()[:8], "big", signed=True)
        try:
            connection = psycopg.connect(
                self._database.libpq_url, autocommit=True, connect_timeout=10, options=_SOON_MISSED
            )
        except psycopg.OperationalError as error:
            raise DatabaseUnavailable(str(error).split("\n")[0]) from error
        with connection:
            found = connection.execute("SELECT pg_try_advisory_lock(%s)", (number,)).fetchone()
            held = bool(found and found[0])
            try:
                yield held
            finally:
                if held:  # or the server would notice the end of the connection only a moment later
                    with suppress(psycopg.Error):
                        connection.execute("SELECT pg_advisory_unlock(%s)", (number,))

    def open(self, sender: str) -> Sequence[JournalTx]:
        """Transactions with work left, oldest first."""
        with self._database.transaction() as tx:
            rows = tx.scalars(select(TxRow).where(TxRow.sender == sender, TxRow.state.in_(_OPEN)).order_by(TxRow.id))
            return [entry(row) for row in rows]

    def highest_nonce(self, sender: str) -> int:
        """Highest nonce ever given out, −1 if none."""
        with self._database.transaction() as tx:
            found = tx.scalar(select(func.max(TxRow.nonce)).where(TxRow.sender == sender))
            return -1 if found is None else int(found)

    def raw_at(self, sender: str, nonce: int) -> bytes | None:
        """What was signed at a nonce."""
        with self._database.transaction() as tx:
            return tx.scalar(select(TxRow.raw).where(TxRow.sender == sender, TxRow.nonce == nonce))

    def signed(self, tx_id: int, nonce: int, raw: bytes, tx_hash: str, offer: FeeOffer, head: int) -> None:
        """Journal a signed version before it is sent."""
        try:
            with self._row(tx_id) as (_, row):
                if row.nonce not in (None, nonce) or row.state not in IN_FLIGHT:
                    raise NonceTaken(row.sender, nonce)
                row.nonce, row.raw, row.tx_hash, row.max_fee = nonce, raw, tx_hash, offer.max_fee
                row.hashes = row.hashes | {tx_hash: [offer.max_fee, offer.priority_fee]}
                row.attempts += 1
                row.sent_at, row.sent_head = self._now(), head
        except IntegrityError as error:
            raise NonceTaken(self._sender_of(tx_id), nonce) from error

    def sent(self, tx_id: int, head: int) -> None:
        """journaled or dropped → sent."""
        with self._row(tx_id) as (tx, row):
            if row.state in ("journaled", "dropped"):
                row.state, row.sent_at, row.sent_head, row.error = "sent", self._now(), head, ""
                _tell(tx, row, "tx.sent")

    def included(self, tx_id: int, receipt: TxReceipt, *, final: bool, error: str = "") -> None:
        """→ mined or reverted; with ``final`` → final or failed."""
        with self._row(tx_id) as (tx, row):
            if row.state not in OPEN or receipt.tx_hash not in row.hashes:
                return
            before, row.state = row.state, state_of(receipt, final=final)
            row.mined_at, row.error = self._now(), error
            row.tx_hash, row.gas_used = receipt.tx_hash, receipt.gas_used
            row.block_number, row.block_hash = receipt.block_number, receipt.block_hash
            if row.state != before:
                _tell(tx, row, f"tx.{row.state}")

    def refused(self, tx_id: int, error: str) -> None:
        """journaled, never signed → failed."""
        with self._row(tx_id) as (tx, row):
            if row.state == "journaled" and row.raw is None:
                row.state, row.error = "failed", error
                _tell(tx, row, "tx.failed")

    def dropped(self, tx_id: int, block_hash: str) -> None:
        """mined or reverted → dropped."""
        with self._row(tx_id) as (tx, row):
            if row.state in PROVISIONAL and row.block_hash == block_hash:
                row.state, row.block_number, row.block_hash, row.mined_at = "dropped", None, None, None
                _tell(tx, row, "tx.dropped")

    def displaced(self, tx_id: int, versions: Collection[str]) -> None:
        """→ journaled without a nonce."""
        with self._row(tx_id) as (_, row):
            if row.state in IN_FLIGHT and row.hashes.keys() == set(versions):
                row.state, row.nonce, row.raw, row.tx_hash = "journaled", None, None, None

    def troubled(self, tx_id: int, error: str) -> None:
        """Note a problem."""
        with self._row(tx_id) as (_, row):
            row.error = error

    @contextmanager
    def _row(self, tx_id: int) -> Iterator[tuple[Tx, TxRow]]:
        with self._database.transaction() as tx:
            row = tx.get(TxRow, tx_id, with_for_update=True)
            if row is None:
                raise UnknownTransaction(f"there is no transaction {tx_id} in the journal")
            yield tx, row

    def _sender_of(self, tx_id: int) -> str:
        with self._row(tx_id) as (_, row):
            return row.sender

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock(), UTC)


def entry(row: TxRow) -> JournalTx:
    """A row as the sender sees it."""
    return JournalTx(
        id=row.id,
        action_key=row.action_key,
        job_id=row.job_id,
        sender=row.sender,
        to=row.to,
        call=row.call,
        data=bytes.fromhex(row.data[2:]),
        value=row.value,
        state=cast(TxState, row.state),
        nonce=row.nonce,
        raw=row.raw,
        tx_hash=row.tx_hash,
        offers={tx_hash: FeeOffer(*fees) for tx_hash, fees in row.hashes.items()},
        sent_at=row.sent_at.timestamp() if row.sent_at else 0.0,
        sent_head=row.sent_head or 0,
        block_number=row.block_number,
        block_hash=row.block_hash,
    )


def _tell(tx: Tx, row: TxRow, topic: str) -> None:
    payload = {"tx_id": row.id, "action_key": row.action_key, "job_id": row.job_id, "call": row.call}
    emit(tx, topic, payload | {"tx_hash": row.tx_hash} | ({"error": row.error} if row.error else {}))
