"""What the sender keeps before and after it sends. PostgreSQL's implementation is everlease.db.journal."""

from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from everlease.domain.transactions import FeeOffer, JournalTx, TxReceipt


class Journal(Protocol):
    """Durable before it returns. Each change of state emits an event in the same transaction: tx.sent, tx.mined,
    tx.reverted, tx.final, tx.failed, tx.dropped, with action_key and job_id. Whoever calls may have read the row before
    another process changed it: a change that no longer fits does nothing, and what is final or failed stays so."""

    def hold(self, sender: str) -> AbstractContextManager[bool]:
        """Become the one sender of this key; yields False where another process is it."""
        ...

    def open(self, sender: str) -> Sequence[JournalTx]:
        """The transactions of ``sender`` that are not final or failed, oldest first."""
        ...

    def highest_nonce(self, sender: str) -> int:
        """Highest nonce that was ever given out, −1 if none."""
        ...

    def raw_at(self, sender: str, nonce: int) -> bytes | None:
        """The newest signed version at a nonce, whatever became of it."""
        ...

    def signed(self, tx_id: int, nonce: int, raw: bytes, tx_hash: str, offer: FeeOffer, head: int) -> None:
        """A version was signed and is about to be sent; ``head`` is the newest block's number. Raises NonceTaken where
        the nonce is another transaction's, or this one was signed at another nonce or is in a block: then somebody else
        became the sender meanwhile."""
        ...

    def sent(self, tx_id: int, head: int) -> None:
        """The newest version was handed to a node when ``head`` was the newest block; does nothing unless it was
        journaled or dropped."""
        ...

    def included(self, tx_id: int, receipt: TxReceipt, *, final: bool, error: str = "") -> None:
        """A version of it is in a block: → mined or reverted, or with ``final`` → final or failed. ``error``: why it
        reverted. Does nothing if the receipt is of none of its versions."""
        ...

    def refused(self, tx_id: int, error: str) -> None:
        """The simulation reverted before anything was signed: → failed; does nothing if it was signed meanwhile."""
        ...

    def dropped(self, tx_id: int, block_hash: str) -> None:
        """A reorg took this block, in which it was."""
        ...

    def displaced(self, tx_id: int, versions: Collection[str]) -> None:
        """Something foreign is final at its nonce: journaled again, without nonce and raw, its old hashes kept.
        Does nothing if these are not all its ``versions``: another one may be what was mined."""
        ...

    def troubled(self, tx_id: int, error: str) -> None:
        """Note why it can't be sent now; the state stays."""
        ...
