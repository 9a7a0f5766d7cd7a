"""The newest receipt of each lease, and the wake-up of the gateway that pushes it."""

from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert

from everlease.db.engine import Tx
from everlease.db.models.jobs import ReceiptRow
from everlease.domain.terms import Receipt

CHANNEL = "everlease_receipt"
"""NOTIFY payload: the node's address."""


def newest(tx: Tx, lease_id: str) -> ReceiptRow | None:
    """The newest receipt of a lease, or None."""
    return tx.scalar(
        select(ReceiptRow).where(ReceiptRow.lease_id == lease_id).execution_options(populate_existing=True)
    )


def terms_of(row: ReceiptRow) -> Receipt:
    """The receipt that was signed."""
    return Receipt(row.lease_id, row.seq, row.seen_at, row.earned, row.final, row.checkpoint_root)


def put(tx: Tx, job_id: str, node: str, receipt: Receipt, signature: str, signed_at: datetime) -> bool:
    """Keep a receipt if its seq is newer and its lease has no final one; the gateway is woken when it commits."""
    values = {
        "job_id": job_id,
        "node": node,
        "seq": receipt.seq,
        "seen_at": receipt.seen_at,
        "earned": receipt.earned,
        "final": receipt.final,
        "checkpoint_root": receipt.checkpoint_root,
        "signature": signature,
        "signed_at": signed_at,
    }
    kept = tx.execute(
        insert(ReceiptRow)
        .values(lease_id=receipt.lease_id, **values)
        .on_conflict_do_update(
            index_elements=["lease_id"],
            set_=values,
            where=(ReceiptRow.seq < receipt.seq) & ~ReceiptRow.final & (ReceiptRow.earned <= receipt.earned),
        )
        .returning(ReceiptRow.lease_id)
    ).one_or_none()
    if kept is not None:
        tx.execute(select(func.pg_notify(CHANNEL, node)))
    return kept is not None
