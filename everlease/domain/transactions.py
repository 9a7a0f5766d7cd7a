"""Transactions of ours on their way to the chain: what the journal keeps of them. everlease.chain.sender sends them."""

from dataclasses import dataclass, field
from typing import Literal

TxState = Literal["journaled", "sent", "dropped", "mined", "reverted", "final", "failed"]
IN_FLIGHT: frozenset[TxState] = frozenset({"journaled", "sent", "dropped"})
"""In no block, as far as is known."""
PROVISIONAL: frozenset[TxState] = frozenset({"mined", "reverted"})
"""In a block that a reorg can still take: act on it only where a second effect is harmless."""
OPEN = IN_FLIGHT | PROVISIONAL
"""States that the sender still has work with; the others, ``final`` and ``failed``, never change."""


class NonceTaken(Exception):
    """Another sender used this nonce: the lock was lost; nothing was sent."""

    retryable = True

    def __init__(self, sender: str, nonce: int) -> None:
        super().__init__(f"nonce {nonce} of {sender} belongs to another transaction")
        self.sender = sender
        self.nonce = nonce


@dataclass(frozen=True, slots=True)
class TxReceipt:
    """A mined transaction; ``ok`` is false if it reverted, ``contract`` is what it created."""

    tx_hash: str
    block_number: int
    block_hash: str
    ok: bool
    gas_used: int
    gas_price: int
    contract: str | None = None


def state_of(receipt: TxReceipt, *, final: bool) -> TxState:
    """What a transaction in a block is; ``final``: no reorg can take that block."""
    if receipt.ok:
        return "final" if final else "mined"
    return "failed" if final else "reverted"


@dataclass(frozen=True, slots=True)
class FeeOffer:
    """What one signed version of a transaction pays at most, wei per gas."""

    max_fee: int
    priority_fee: int


@dataclass(frozen=True, slots=True)
class JournalTx:
    """A journaled transaction. ``offers``: every hash that was ever signed for it; ``raw`` is the newest version.

    ``sent_at``: unix seconds at which the newest version was signed, or sent again after a reorg; ``sent_head``: number
    of the newest block at that time.
    """

    id: int
    action_key: str
    job_id: str | None
    sender: str
    to: str
    call: str
    data: bytes
    value: int = 0
    state: TxState = "journaled"
    nonce: int | None = None
    raw: bytes | None = None
    tx_hash: str | None = None
    offers: dict[str, FeeOffer] = field(default_factory=dict)
    sent_at: float = 0.0
    sent_head: int = 0
    block_number: int | None = None
    block_hash: str | None = None
