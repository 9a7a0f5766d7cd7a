"""Events that leave a transaction, and transactions that leave for the chain."""

from sqlalchemy import Index, LargeBinary, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from everlease.db.models.base import Address, Base, BigInt, CreatedAt, Hex32, Instant, Json, LongText, Serial, Units


class OutboxRow(Base):
    """Written in the transaction that makes it true, sent to Celery after commit, swept if the broker lost it."""

    __tablename__ = "outbox"
    __table_args__ = (Index("ix_outbox_unsent", "id", postgresql_where="sent_at IS NULL"),)

    id: Mapped[Serial]
    topic: Mapped[str]
    payload: Mapped[Json]
    created_at: Mapped[CreatedAt]
    sent_at: Mapped[Instant | None]


class TxRow(Base):
    """A transaction of ours: journaled before it is sent. ``action_key`` allows one effect per (job, epoch, action).

    ``state``: journaled → sent → mined → final, or reverted → failed (``error`` says why). mined and reverted last
    until their block is final: a reorg makes them dropped (sent again) or the other one. journaled → failed: refused.
    """

    __tablename__ = "tx"
    __table_args__ = (
        UniqueConstraint("action_key"),
        Index("ix_tx_open", "sender", "state"),
        Index("uq_tx_sender_nonce", "sender", "nonce", unique=True),
    )

    id: Mapped[Serial]
    action_key: Mapped[str]
    job_id: Mapped[Hex32 | None] = mapped_column(index=True)
    sender: Mapped[Address]
    to: Mapped[Address]
    call: Mapped[str]
    data: Mapped[LongText]
    value: Mapped[Units] = mapped_column(default=0)
    state: Mapped[str] = mapped_column(default="journaled")
    nonce: Mapped[BigInt | None]
    hashes: Mapped[Json] = mapped_column(default=dict)
    attempts: Mapped[int] = mapped_column(default=0)
    max_fee: Mapped[Units] = mapped_column(default=0)
    raw: Mapped[bytes | None] = mapped_column(LargeBinary())
    tx_hash: Mapped[Hex32 | None]
    block_number: Mapped[BigInt | None]
    block_hash: Mapped[Hex32 | None]
    gas_used: Mapped[BigInt | None]
    error: Mapped[LongText] = mapped_column(default="")
    created_at: Mapped[CreatedAt]
    sent_at: Mapped[Instant | None]
    sent_head: Mapped[BigInt | None]
    mined_at: Mapped[Instant | None]
