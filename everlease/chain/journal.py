"""What the sender keeps before and after it sends. PostgreSQL's implementation is everlease.db.journal."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from everlease.domain.transactions import FeeOffer, JournalTx, TxReceipt


class Journal(Protocol):
    """Durable before it returns. Each change of state emits an event in the same transaction: tx.sent, tx.mined,
    tx.final, tx.failed, tx.dropped, with action_key and job_id. A change that finds the row past it does nothing."""

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

    def signed(self, tx_id: int, nonce: int, raw: bytes, tx_hash: str, offer: FeeOffer) -> None:
        """A version was signed and is about to be sent. Raises NonceTaken where the nonce is another transaction's, or
        this one was signed at another nonce or is done: then somebody else became the sender meanwhile."""
        ...

    def sent(self, tx_id: int) -> None:
        """The newest version was handed to a node; does nothing unless it was journaled or dropped."""
        ...

    def mined(self, tx_id: int, receipt: TxReceipt) -> None:
        """Mined with success (again, perhaps in another block)."""
        ...

    def final(self, tx_id: int) -> None:
        """Its block is final."""
        ...

    def failed(self, tx_id: int, name: str, error: str, receipt: TxReceipt | None = None) -> None:
        """Reverted in simulation or (with ``receipt``) on chain. ``name`` is the contract's error."""
        ...

    def dropped(self, tx_id: int) -> None:
        """A reorg took its block."""
        ...

    def displaced(self, tx_id: int) -> None:
        """Something foreign was mined at its nonce: journaled again, without nonce and raw, its old hashes kept."""
        ...

    def troubled(self, tx_id: int, error: str) -> None:
        """Note why it can't be sent now; the state stays."""
        ...
