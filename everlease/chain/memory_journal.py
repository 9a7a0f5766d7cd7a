"""The journal in memory: for tests that need thousands of crashes, and for keys whose every transaction may be repeated
(a node's collects and answers: the contract makes a second one harmless)."""

import itertools
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from everlease.domain.transactions import (
    IN_FLIGHT,
    OPEN,
    PROVISIONAL,
    FeeOffer,
    JournalTx,
    NonceTaken,
    TxReceipt,
    state_of,
)


class MemoryJournal:
    """Journal without a disk; ``events`` is what an outbox would hold: (topic, action_key)."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._rows: dict[int, JournalTx] = {}
        self._ids = itertools.count(1)
        self._held: set[str] = set()
        self.events: list[tuple[str, str]] = []
        self.errors: dict[str, str] = {}

    def enqueue(
        self, action_key: str, sender: str, to: str, data: bytes, *, job_id: str | None = None, again: bool = False
    ) -> int:
        """Journal a transaction unless its key is there; with ``again`` one that failed is tried anew."""
        known = next((row for row in self._rows.values() if row.action_key == action_key), None)
        if known is not None and not (again and known.state == "failed"):
            return known.id
        number = known.id if known is not None else next(self._ids)
        self._rows[number] = JournalTx(number, action_key, job_id, sender, to, "test", data)
        return number

    def amend(self, tx_id: int, data: bytes) -> None:
        """Have the next version of a transaction that is in no block yet call something else; its nonce stays."""
        if self._rows[tx_id].state in IN_FLIGHT:
            self._change(tx_id, data=data)

    def get(self, tx_id: int) -> JournalTx:
        """One row."""
        return self._rows[tx_id]

    def rows(self) -> list[JournalTx]:
        """Every row, oldest first."""
        return list(self._rows.values())

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

    def signed(self, tx_id: int, nonce: int, raw: bytes, tx_hash: str, offer: FeeOffer, head: int) -> None:
        row = self._rows[tx_id]
        if row.nonce not in (None, nonce) or row.state not in IN_FLIGHT:
            raise NonceTaken(row.sender, nonce)
        if any(r.sender == row.sender and r.nonce == nonce and r.id != tx_id for r in self._rows.values()):
            raise NonceTaken(row.sender, nonce)
        self._change(
            tx_id, nonce=nonce, raw=raw, tx_hash=tx_hash, offers=row.offers | {tx_hash: offer}, sent_at=self._clock(),
            sent_head=head,
        )  # fmt: skip

    def sent(self, tx_id: int, head: int) -> None:
        if self._rows[tx_id].state in ("journaled", "dropped"):
            self._change(tx_id, "tx.sent", state="sent", sent_at=self._clock(), sent_head=head)

    def included(self, tx_id: int, receipt: TxReceipt, *, final: bool, error: str = "") -> None:
        row, state = self._rows[tx_id], state_of(receipt, final=final)
        if row.state in OPEN and receipt.tx_hash in row.offers:
            self.errors[row.action_key] = error
            self._change(
                tx_id, f"tx.{state}", state=state, block_number=receipt.block_number, block_hash=receipt.block_hash,
                tx_hash=receipt.tx_hash,
            )  # fmt: skip

    def refused(self, tx_id: int, error: str) -> None:
        row = self._rows[tx_id]
        if row.state == "journaled" and row.raw is None:
            self.errors[row.action_key] = error
            self._change(tx_id, "tx.failed", state="failed")

    def dropped(self, tx_id: int, block_hash: str) -> None:
        row = self._rows[tx_id]
        if row.state in PROVISIONAL and row.block_hash == block_hash:
            self._change(tx_id, "tx.dropped", state="dropped", block_number=None, block_hash=None)

    def displaced(self, tx_id: int, versions: Collection[str]) -> None:
        row = self._rows[tx_id]
        if row.state in IN_FLIGHT and set(row.offers) == set(versions):
            self._change(tx_id, state="journaled", nonce=None, raw=None, tx_hash=None)

    def troubled(self, tx_id: int, error: str) -> None:
        self.errors[self._rows[tx_id].action_key] = error

    def _change(self, tx_id: int, topic: str | None = None, **changes: Any) -> None:
        row = self._rows[tx_id]
        self._rows[tx_id] = replace(row, **changes)
        if topic is not None and row.state != self._rows[tx_id].state:
            self.events.append((topic, row.action_key))
