"""The journal in memory: for tests that need thousands of crashes, and for keys whose every transaction may be repeated
(a node's collects and answers: the contract makes a second one harmless)."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from everlease.domain.transactions import OPEN, FeeOffer, JournalTx, NonceTaken, TxReceipt


class MemoryJournal:
    """Journal without a disk; ``events`` is what an outbox would hold: (topic, action_key)."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._rows: dict[int, JournalTx] = {}
        self._ids = itertools.count(1)
        self._held: set[str] = set()
        self.events: list[tuple[str, str]] = []
        self.errors: dict[str, str] = {}

    def enqueue(self, action_key: str, sender: str, to: str, data: bytes, *, job_id: str | None = None) -> int:
        """Journal a transaction unless its key is there."""
        for row in self._rows.values():
            if row.action_key == action_key:
                return row.id
        row = JournalTx(next(self._ids), action_key, job_id, sender, to, "test", data)
        self._rows[row.id] = row
        return row.id

    def get(self, tx_id: int) -> JournalTx:
        """One row."""
        return self._rows[tx_id]

    @contextmanager
    def hold(self, sender: str) -> Iterator[bool]:
        if sender in self._held:
            yield False
            return
        self._held.add(sender)
        try:
            yield True
        finally:
            self._held.discard(sender)

    def open(self, sender: str) -> Sequence[JournalTx]:
        return [row for row in self._rows.values() if row.sender == sender and row.state in OPEN]

    def highest_nonce(self, sender: str) -> int:
        return max(
            (row.nonce for row in self._rows.values() if row.sender == sender and row.nonce is not None), default=-1
        )

    def raw_at(self, sender: str, nonce: int) -> bytes | None:
        return next((row.raw for row in self._rows.values() if row.sender == sender and row.nonce == nonce), None)

    def signed(self, tx_id: int, nonce: int, raw: bytes, tx_hash: str, offer: FeeOffer) -> None:
        row = self._rows[tx_id]
        if row.nonce not in (None, nonce) or row.state in ("mined", "final", "failed"):
            raise NonceTaken(row.sender, nonce)
        if any(r.sender == row.sender and r.nonce == nonce and r.id != tx_id for r in self._rows.values()):
            raise NonceTaken(row.sender, nonce)
        self._change(
            tx_id, nonce=nonce, raw=raw, tx_hash=tx_hash, offers=row.offers | {tx_hash: offer}, sent_at=self._clock()
        )

    def sent(self, tx_id: int) -> None:
        if self._rows[tx_id].state in ("journaled", "dropped"):
            self._change(tx_id, "tx.sent", state="sent", sent_at=self._clock())

    def mined(self, tx_id: int, receipt: TxReceipt) -> None:
        self._change(
            tx_id, "tx.mined", state="mined", block_number=receipt.block_number, block_hash=receipt.block_hash,
            tx_hash=receipt.tx_hash,
        )  # fmt: skip

    def final(self, tx_id: int) -> None:
        self._change(tx_id, "tx.final", state="final")

    def failed(self, tx_id: int, name: str, error: str, receipt: TxReceipt | None = None) -> None:
        self.errors[self._rows[tx_id].action_key] = name
        self._change(tx_id, "tx.failed", state="failed")

    def dropped(self, tx_id: int) -> None:
        self._change(tx_id, "tx.dropped", state="dropped", block_number=None, block_hash=None)

    def displaced(self, tx_id: int) -> None:
        self._change(tx_id, state="journaled", nonce=None, raw=None, tx_hash=None)

    def troubled(self, tx_id: int, error: str) -> None:
        self.errors[self._rows[tx_id].action_key] = error

    def _change(self, tx_id: int, topic: str | None = None, **changes: Any) -> None:
        row = self._rows[tx_id]
        self._rows[tx_id] = replace(row, **changes)
        if topic is not None and row.state != self._rows[tx_id].state:
            self.events.append((topic, row.action_key))
