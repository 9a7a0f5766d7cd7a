"""A simulated chain: blocks, a pool, reorgs and a finalized tag in memory, for tests that need many of them fast.

What contracts do is a function that the test gives; gas, balances and the EVM are not simulated.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from eth_account import Account
from eth_account.typed_transactions.typed_transaction import TypedTransaction
from eth_utils.crypto import keccak
from hexbytes import HexBytes

from everlease.chain.base import BlockTag, Fees, Header, Log, Standing, TxReceipt, has_topics
from everlease.chain.bloom import EMPTY, bloom_of
from everlease.chain.errors import AlreadyKnown, CallReverted, NonceTooLow, RpcRefused, TooManyResults, Underpriced

Emitted = tuple[str, tuple[str, ...], bytes]
"""Address, topics and data of a log."""
Contract = Callable[[str, str, bytes], list[Emitted]]
"""(sender, to, data) → logs; raises CallReverted."""

_BASE_FEE = 1_000_000_000
_GAS = 21_000


@dataclass(frozen=True, slots=True)
class _Transaction:
    hash: str
    sender: str
    nonce: int
    to: str
    data: bytes
    max_fee: int
    priority_fee: int


@dataclass(slots=True)
class _Block:
    header: Header
    receipts: dict[str, TxReceipt] = field(default_factory=dict)
    transactions: list[_Transaction] = field(default_factory=list)
    logs: list[Log] = field(default_factory=list)


class MemoryChain:
    """ChainWriter in memory. Nothing is mined until ``mine``; ``finality`` is how deep the finalized tag lies."""

    def __init__(
        self,
        *,
        chain_id: int = 31337,
        finality: int | None = None,
        contract: Contract | None = None,
        genesis: str = "0x" + "00" * 31 + "01",
    ) -> None:
        self._chain_id = chain_id
        self._finality = finality
        self._contract = contract or (lambda sender, to, data: [])
        self._salt = 0
        self._pool: dict[tuple[str, int], _Transaction] = {}
        self._queued: list[Emitted] = []
        self._blocks = [_Block(Header(0, genesis, "0x" + "00" * 32, 1_700_000_000, EMPTY))]
        self.max_logs = 10_000
        self.base_fee = _BASE_FEE

    # -- what a test does to it --

    def emit(self, address: str, topics: tuple[str, ...], data: bytes) -> None:
        """Let the next block hold this log, as if of a transaction of somebody else."""
        self._queued.append((address.lower(), topics, data))

    def mine(self, blocks: int = 1) -> None:
        """Mine the pool and the queued logs into the next block, then ``blocks`` − 1 empty ones."""
        for _ in range(blocks):
            self._mine_one()

    def reorg(self, depth: int, *, length: int | None = None) -> None:
        """Replace the last ``depth`` blocks by ``length`` empty ones (as many by default); their transactions go."""
        del self._blocks[-depth:]
        self._salt += 1
        queued, self._queued = self._queued, []
        pool, self._pool = self._pool, {}
        self.mine(depth if length is None else length)
        self._queued, self._pool = queued, pool

    def forget_pool(self) -> None:
        """Lose every pending transaction."""
        self._pool.clear()

    def fork(self) -> "MemoryChain":
        """The chain as it is now, without its pool: what a node goes on saying that hears nothing more."""
        other = MemoryChain(chain_id=self._chain_id, finality=self._finality, contract=self._contract)
        other._blocks, other.base_fee = list(self._blocks), self.base_fee
        return other

    # -- ChainReader --

    def chain_id(self) -> int:
        return self._chain_id

    def header(self, block: BlockTag) -> Header | None:
        if block == "latest":
            return self._blocks[-1].header
        if block == "finalized":
            if self._finality is None:
                return None
            return self._blocks[max(0, len(self._blocks) - 1 - self._finality)].header
        return self._blocks[block].header if 0 <= block < len(self._blocks) else None

    def headers(self, numbers: Sequence[int]) -> list[Header | None]:
        return [self.header(number) for number in numbers]

    def logs(self, addresses: Sequence[str], first: int, last: int, topics: Sequence[str | None] = ()) -> list[Log]:
        found = [log for block in self._blocks[first : last + 1] for log in self._of(block, addresses)]
        found = [log for log in found if has_topics(log, topics)]
        if len(found) > self.max_logs:
            raise TooManyResults("eth_getLogs", -32005, f"more than {self.max_logs} results")
        return found

    def logs_of(self, addresses: Sequence[str], block_hash: str) -> list[Log]:
        for block in reversed(self._blocks):
            if block.header.hash == block_hash:
                return self._of(block, addresses)
        raise RpcRefused("eth_getLogs", -32000, "unknown block")

    def call(self, to: str, data: bytes, *, sender: str | None = None, at: int | None = None) -> bytes:
        self._contract(sender or "0x" + "00" * 20, to, data)
        return b""

    def code(self, address: str) -> bytes:
        return b""

    def balance(self, address: str) -> int:
        return 10**22

    # -- ChainWriter --

    def nonce(self, address: str) -> int:
        return self._count(address, len(self._blocks))

    def next_nonce(self, address: str) -> int:
        nonce = self.nonce(address)
        while (address.lower(), nonce) in self._pool:
            nonce += 1
        return nonce

    def standing(self, address: str, final: Header, tx_hashes: Sequence[str]) -> Standing:
        anchored = self.header(final.number) == final
        nonce = self._count(address, final.number + 1) if anchored else 0
        head = self._blocks[-1].header.number
        return Standing(anchored, head, self.nonce(address), nonce, tuple(self.receipts(tx_hashes)))

    def fees(self) -> Fees:
        return Fees(self.base_fee, 1_000_000_000)

    def estimate_gas(self, sender: str, to: str | None, data: bytes, value: int = 0) -> int:
        self._contract(sender, to or "0x", data)
        return _GAS

    def send_raw(self, raw: bytes) -> str:
        found = _decode(raw)
        if self.knows(found.hash):
            raise AlreadyKnown("eth_sendRawTransaction", -32003, "already known")
        if found.nonce < self.nonce(found.sender):
            raise NonceTooLow("eth_sendRawTransaction", -32003, "nonce too low")
        present = self._pool.get((found.sender, found.nonce))
        if present is not None and (
            found.max_fee * 10 < present.max_fee * 11 or found.priority_fee * 10 < present.priority_fee * 11
        ):
            raise Underpriced("eth_sendRawTransaction", -32003, "replacement transaction underpriced")
        self._pool[found.sender, found.nonce] = found
        return found.hash

    def receipts(self, tx_hashes: Sequence[str]) -> list[TxReceipt | None]:
        mined = {key: receipt for block in self._blocks for key, receipt in block.receipts.items()}
        return [mined.get(tx_hash) for tx_hash in tx_hashes]

    def knows(self, tx_hash: str) -> bool:
        return self.receipts([tx_hash])[0] is not None or any(tx.hash == tx_hash for tx in self._pool.values())

    # -- inside --

    def _count(self, address: str, blocks: int) -> int:
        return sum(tx.sender == address.lower() for block in self._blocks[:blocks] for tx in block.transactions)

    def _of(self, block: _Block, addresses: Sequence[str]) -> list[Log]:
        wanted = {address.lower() for address in addresses}
        return [log for log in block.logs if log.address in wanted]

    def _mine_one(self) -> None:
        parent = self._blocks[-1].header
        ready = self._take_ready()
        seed = f"{parent.hash}{self._salt}{[tx.hash for tx in ready]}{self._queued}"
        block_hash = "0x" + bytes(keccak(text=seed)).hex()
        block = _Block(Header(parent.number + 1, block_hash, parent.hash, parent.timestamp + 1, EMPTY))
        for transaction in ready:
            self._execute(block, transaction)
        for emitted in self._queued:
            self._append(block, emitted, "0x" + bytes(keccak(text=block.header.hash)).hex())
        self._queued = []
        if block.logs:
            items = (bytes.fromhex(item[2:]) for log in block.logs for item in (log.address, *log.topics))
            block.header = replace(block.header, bloom=bloom_of(items))
        self._blocks.append(block)

    def _take_ready(self) -> list[_Transaction]:
        """Pool transactions that pay the base fee and whose nonce is next, chains of them included."""
        ready: list[_Transaction] = []
        nonces: dict[str, int] = {}
        for sender, nonce in sorted(self._pool):
            due = nonces.setdefault(sender, self.nonce(sender))
            if nonce == due and self._pool[sender, nonce].max_fee >= self.base_fee:
                ready.append(self._pool[sender, nonce])
                nonces[sender] += 1
        self._pool = {key: tx for key, tx in self._pool.items() if key[1] > nonces[key[0]] - 1}
        return ready

    def _execute(self, block: _Block, transaction: _Transaction) -> None:
        ok = True
        try:
            for emitted in self._contract(transaction.sender, transaction.to, transaction.data):
                self._append(block, emitted, transaction.hash)
        except CallReverted:
            ok = False
        block.transactions.append(transaction)
        block.receipts[transaction.hash] = TxReceipt(
            transaction.hash, block.header.number, block.header.hash, ok, _GAS, _BASE_FEE
        )

    def _append(self, block: _Block, emitted: Emitted, tx_hash: str) -> None:
        address, topics, data = emitted
        header = block.header
        block.logs.append(Log(address, topics, data, header.number, header.hash, tx_hash, len(block.logs)))


def _decode(raw: bytes) -> _Transaction:
    fields = TypedTransaction.from_bytes(HexBytes(raw)).as_dict()
    return _Transaction(
        hash="0x" + bytes(keccak(raw)).hex(),
        sender=str(Account.recover_transaction(raw)).lower(),
        nonce=int(fields["nonce"]),
        to="0x" + bytes(fields["to"]).hex(),
        data=bytes(fields["data"]),
        max_fee=int(fields["maxFeePerGas"]),
        priority_fee=int(fields["maxPriorityFeePerGas"]),
    )
