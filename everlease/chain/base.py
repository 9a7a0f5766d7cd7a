"""What the rest of the code sees of a chain: two protocols and the records they exchange.

Hashes, addresses and topics are lower-case 0x-hex; fees are wei per gas; timestamps unix seconds. ``RpcChain`` talks to
a real node, ``MemoryChain`` is a simulated one; both pass tests/conformance/test_chain.py.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from msgspec import Struct

from everlease.domain.transactions import TxReceipt

__all__ = ["BlockTag", "ChainReader", "ChainWriter", "Creation", "Fees", "Header", "Log", "Standing", "TxReceipt"]

BlockTag = int | Literal["latest", "finalized"]


@dataclass(frozen=True, slots=True)
class Header:
    """A block's header, as far as anyone here needs it. ``bloom``: its logsBloom, 256 bytes."""

    number: int
    hash: str
    parent_hash: str
    timestamp: int
    bloom: bytes


class Log(Struct, frozen=True, gc=False):
    """A raw log; ``topics[0]`` is the event's hash."""

    address: str
    topics: tuple[str, ...]
    data: bytes
    block_number: int
    block_hash: str
    tx_hash: str
    log_index: int


def has_topics(log: Log, topics: Sequence[str | None]) -> bool:
    """Whether a log has these topics in these places; None stands for any."""
    if len(log.topics) < len(topics):
        return False
    return all(wanted is None or wanted == topic for wanted, topic in zip(topics, log.topics, strict=False))


@dataclass(frozen=True, slots=True)
class Fees:
    """What the next block asks for."""

    base_fee: int
    priority_fee: int


@dataclass(frozen=True, slots=True)
class Creation:
    """A transaction that creates a contract; ``code`` includes the constructor's arguments."""

    sender: str
    nonce: int
    code: bytes


@dataclass(frozen=True, slots=True)
class Standing:
    """What one endpoint says, in one answer, of a sender and its transactions, as seen from a block that is final.

    ``anchored``: this endpoint has that very block, so its receipts up to there are final and ``final_nonce`` holds;
    otherwise it lags or is on another fork. Nonces count mined transactions: all, and those up to the block (0 unless
    anchored). ``head``: number of its newest block. Receipts are in the order asked.
    """

    anchored: bool
    head: int
    nonce: int
    final_nonce: int
    receipts: tuple[TxReceipt | None, ...]


class ChainReader(Protocol):
    """Reading; every method raises RpcUnavailable (retryable) when no endpoint answers."""

    def chain_id(self) -> int:
        """The chain's id."""
        ...

    def header(self, block: BlockTag) -> Header | None:
        """A header, or None where there is none (yet); ``finalized`` is None where the chain has no such tag."""
        ...

    def headers(self, numbers: Sequence[int]) -> list[Header | None]:
        """Headers of several blocks in one go, in the order asked."""
        ...

    def logs(self, addresses: Sequence[str], first: int, last: int, topics: Sequence[str | None] = ()) -> list[Log]:
        """Logs of these contracts in blocks first..last, in any order; TooManyResults beyond what one answer holds.

        ``topics``: what they must have in these places, None for anything.
        """
        ...

    def logs_of(self, addresses: Sequence[str], block_hash: str) -> list[Log]:
        """Logs of these contracts in exactly this block; raises RpcRefused if it is not known (any more)."""
        ...

    def call(self, to: str, data: bytes, *, sender: str | None = None, at: int | None = None) -> bytes:
        """eth_call on the state after block ``at``, the latest by default; raises CallReverted."""
        ...

    def code(self, address: str) -> bytes:
        """An account's code, empty for a plain key."""
        ...

    def balance(self, address: str) -> int:
        """An account's wei."""
        ...


class ChainWriter(ChainReader, Protocol):
    """Sending raw transactions and following them."""

    def nonce(self, address: str) -> int:
        """Transactions of ``address`` that are mined."""
        ...

    def next_nonce(self, address: str) -> int:
        """Transactions of ``address`` that are mined or wait in the pool, without a gap between them."""
        ...

    def standing(self, address: str, final: Header, tx_hashes: Sequence[str]) -> Standing:
        """How the transactions of ``address`` stand, given that the block ``final`` is."""
        ...

    def fees(self) -> Fees:
        """What to pay now."""
        ...

    def estimate_gas(self, sender: str, to: str | None, data: bytes, value: int = 0) -> int:
        """Gas that the call (or the creation, where ``to`` is None) needs on the latest state; raises CallReverted."""
        ...

    def send_raw(self, raw: bytes) -> str:
        """Hand over a signed transaction; returns its hash. Raises NonceTooLow, AlreadyKnown, Underpriced, …"""
        ...

    def receipts(self, tx_hashes: Sequence[str]) -> list[TxReceipt | None]:
        """Receipts on the present canonical chain, in the order asked."""
        ...

    def knows(self, tx_hash: str) -> bool:
        """Whether the node has the transaction, mined or pending."""
        ...
