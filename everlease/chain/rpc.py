"""A chain behind JSON-RPC endpoints: ChainReader and ChainWriter in terms of the Ethereum execution API."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Protocol

import msgspec

from everlease.chain.answers import ANYTHING
from everlease.chain.base import BlockTag, Creation, Fees, Header, Log, Standing, TxReceipt, has_topics
from everlease.chain.bloom import SIZE
from everlease.chain.errors import BadAnswer, ChainError, RpcRefused

_FALLBACK_PRIORITY_FEE = 1_000_000_000
_MAX_PLAUSIBLE = 2**63
_STANDING_SIZE = 97
"""Receipts that one batch asks for beside three other answers."""


class Rpc(Protocol):
    """What carries the calls: everlease.chain.jsonrpc over HTTP, or ape's provider in scripts/deploy.py."""

    def call(self, method: str, *params: Any, into: msgspec.json.Decoder[Any] = ANYTHING) -> Any:
        """One call; raises a ChainError. ``into`` says what the result must be."""
        ...

    def batch(
        self, calls: Sequence[tuple[str, Sequence[Any]]], *, into: msgspec.json.Decoder[Any] = ANYTHING
    ) -> list[Any]:
        """Many calls; an item is its result or the ChainError that answered it."""
        ...

    def close(self) -> None:
        """Close every connection."""
        ...


class _Block(msgspec.Struct, rename="camel"):
    number: str
    hash: str
    parent_hash: str
    timestamp: str
    logs_bloom: str


class _LogItem(msgspec.Struct, rename="camel", gc=False):
    address: str
    topics: tuple[str, ...]
    data: str
    block_number: str
    block_hash: str
    transaction_hash: str
    log_index: str
    removed: bool | None = None


_BLOCK = msgspec.json.Decoder(_Block | None)
_LOGS = msgspec.json.Decoder(list[_LogItem])


class RpcChain:
    """ChainWriter over JSON-RPC. Answers are checked for shape; what breaks it raises BadAnswer (retryable)."""

    def __init__(self, rpc: Rpc) -> None:
        self._rpc = rpc

    @classmethod
    def connect(
        cls, urls: Sequence[str], *, chain_id: int | None = None, timeout: float = 10.0, rounds: int = 3
    ) -> "RpcChain":
        """The chain behind these URLs, with this id where one is expected; connects on first use. ``timeout`` (seconds,
        of one request) and ``rounds`` (tries of all URLs) say when RpcUnavailable is raised.
        """
        from everlease.chain.jsonrpc import JsonRpc  # needs httpx, which ape's environment lacks

        return cls(JsonRpc(urls, chain_id=chain_id, timeout=timeout, rounds=rounds))

    def close(self) -> None:
        """Close every connection."""
        self._rpc.close()

    def chain_id(self) -> int:
        return _number(self._rpc.call("eth_chainId"))

    def header(self, block: BlockTag) -> Header | None:
        tag = hex(block) if isinstance(block, int) else block
        try:
            answer = self._rpc.call("eth_getBlockByNumber", tag, False, into=_BLOCK)
        except RpcRefused:
            if block == "finalized":
                return None
            raise
        return None if answer is None else _header(answer)

    def headers(self, numbers: Sequence[int]) -> list[Header | None]:
        calls = [("eth_getBlockByNumber", (hex(number), False)) for number in numbers]
        answers = self._rpc.batch(calls, into=_BLOCK)
        return [None if answer is None else _header(answer) for answer in _whole(answers)]

    def logs(self, addresses: Sequence[str], first: int, last: int, topics: Sequence[str | None] = ()) -> list[Log]:
        where: dict[str, Any] = {"address": list(addresses), "fromBlock": hex(first), "toBlock": hex(last)}
        if topics:
            where["topics"] = list(topics)
        found = _logs(self._rpc.call("eth_getLogs", where, into=_LOGS), addresses)
        return [log for log in found if has_topics(log, topics)]

    def logs_of(self, addresses: Sequence[str], block_hash: str) -> list[Log]:
        where = {"address": list(addresses), "blockHash": block_hash}
        return _logs(self._rpc.call("eth_getLogs", where, into=_LOGS), addresses)

    def call(self, to: str, data: bytes, *, sender: str | None = None, at: int | None = None) -> bytes:
        request = {"to": to, "data": "0x" + data.hex()} | ({"from": sender} if sender else {})
        return _bytes(self._rpc.call("eth_call", request, "latest" if at is None else hex(at)))

    def code(self, address: str) -> bytes:
        return _bytes(self._rpc.call("eth_getCode", address, "latest"))

    def balance(self, address: str) -> int:
        return int(str(self._rpc.call("eth_getBalance", address, "latest")), 16)

    def nonce(self, address: str) -> int:
        return _number(self._rpc.call("eth_getTransactionCount", address, "latest"))

    def next_nonce(self, address: str) -> int:
        return _number(self._rpc.call("eth_getTransactionCount", address, "pending"))

    def standing(self, address: str, final: Header, tx_hashes: Sequence[str]) -> Standing:
        parts = [
            self._standing(address, final, tx_hashes[start : start + _STANDING_SIZE])
            for start in range(0, max(1, len(tx_hashes)), _STANDING_SIZE)
        ]
        receipts = tuple(receipt for part in parts for receipt in part.receipts)
        anchored = all(part.anchored for part in parts)
        head = min(part.head for part in parts)
        return Standing(anchored, head, parts[-1].nonce, parts[-1].final_nonce if anchored else 0, receipts)

    def _standing(self, address: str, final: Header, tx_hashes: Sequence[str]) -> Standing:
        """One batch, so that one endpoint answers all of it. The head comes first: nothing is older than it says."""
        block = hex(final.number)
        head, same, final_nonce, nonce, *receipts = self._rpc.batch(
            [
                ("eth_blockNumber", ()),
                ("eth_getBlockByNumber", (block, False)),
                ("eth_getTransactionCount", (address, block)),
                ("eth_getTransactionCount", (address, "latest")),
                *(("eth_getTransactionReceipt", (tx_hash,)) for tx_hash in tx_hashes),
            ]
        )
        anchored = isinstance(same, dict) and str(same.get("hash")).lower() == final.hash
        return Standing(
            anchored,
            _number(_whole([head])[0]),
            _number(_whole([nonce])[0]),
            _number(final_nonce) if anchored and not isinstance(final_nonce, ChainError) else 0,
            tuple(None if answer is None else _receipt(answer) for answer in _whole(receipts)),
        )

    def fees(self) -> Fees:
        block, priority = self._rpc.batch(
            [("eth_getBlockByNumber", ("latest", False)), ("eth_maxPriorityFeePerGas", ())]
        )
        if isinstance(block, ChainError):
            raise block
        tip = _FALLBACK_PRIORITY_FEE if isinstance(priority, ChainError) else _number(priority)
        return Fees(_number(block.get("baseFeePerGas", "0x0")), tip)

    def estimate_gas(self, sender: str, to: str | None, data: bytes, value: int = 0) -> int:
        request = {"from": sender, "data": "0x" + data.hex(), "value": hex(value)} | ({"to": to} if to else {})
        return _number(self._rpc.call("eth_estimateGas", request))

    def send_raw(self, raw: bytes) -> str:
        return _hash(self._rpc.call("eth_sendRawTransaction", "0x" + raw.hex()))

    def receipts(self, tx_hashes: Sequence[str]) -> list[TxReceipt | None]:
        answers = self._rpc.batch([("eth_getTransactionReceipt", (tx_hash,)) for tx_hash in tx_hashes])
        return [None if answer is None else _receipt(answer) for answer in _whole(answers)]

    def creation(self, tx_hash: str) -> Creation | None:
        """The contract creation with this hash; None where the node has none such."""
        item = self._rpc.call("eth_getTransactionByHash", tx_hash)
        if not isinstance(item, dict) or item.get("to"):
            return None
        try:
            return Creation(_hash(item["from"], 20), _number(item["nonce"]), _bytes(item["input"]))
        except KeyError as error:
            raise BadAnswer("a transaction lacks fields") from error

    def knows(self, tx_hash: str) -> bool:
        return self._rpc.call("eth_getTransactionByHash", tx_hash) is not None


def _whole(answers: list[Any]) -> list[Any]:
    for answer in answers:
        if isinstance(answer, ChainError):
            raise answer
    return answers


def _number(value: Any) -> int:
    try:
        number = int(value, 16)
    except (TypeError, ValueError) as error:
        raise BadAnswer(f"{value!r:.100} is not a quantity") from error
    if number >= _MAX_PLAUSIBLE:
        raise BadAnswer(f"{value!r:.100} is not a plausible quantity")
    return number


def _bytes(value: Any) -> bytes:
    try:
        return bytes.fromhex(value.removeprefix("0x"))
    except (AttributeError, ValueError) as error:
        raise BadAnswer(f"{value!r:.100} is not hexadecimal data") from error


def _hash(value: Any, size: int = 32) -> str:
    raw = _bytes(value)
    if len(raw) != size:
        raise BadAnswer(f"{value!r:.100} has {len(raw)} bytes instead of {size}")
    return f"0x{raw.hex()}"


@lru_cache(maxsize=8192)
def _known_hash(value: str) -> str:
    """``_hash`` of what is told many times over: a block, a transaction, a topic."""
    return _hash(value)


@lru_cache(maxsize=256)
def _known_address(value: str) -> str:
    return _hash(value, 20)


@lru_cache(maxsize=4096)
def _known_number(value: str) -> int:
    return _number(value)


def _header(item: _Block) -> Header:
    return Header(
        _number(item.number),
        _hash(item.hash),
        _hash(item.parent_hash),
        _number(item.timestamp),
        _bloom(item.logs_bloom),
    )


def _bloom(value: str) -> bytes:
    raw = _bytes(value)
    if len(raw) != SIZE:
        raise BadAnswer(f"a bloom has {len(raw)} bytes instead of {SIZE}")
    return raw


def _logs(items: Sequence[_LogItem], addresses: Sequence[str]) -> list[Log]:
    """Logs as they came; those of other contracts are dropped, removed ones too."""
    wanted = {address.lower() for address in addresses}
    found = [_log(item) for item in items if not item.removed]
    return [log for log in found if log.address in wanted]


def _log(item: _LogItem) -> Log:
    return Log(
        _known_address(item.address),
        tuple([_known_hash(topic) for topic in item.topics]),
        _bytes(item.data),
        _known_number(item.block_number),
        _known_hash(item.block_hash),
        _known_hash(item.transaction_hash),
        _known_number(item.log_index),
    )


def _receipt(item: Any) -> TxReceipt:
    try:
        return TxReceipt(
            tx_hash=_hash(item["transactionHash"]),
            block_number=_number(item["blockNumber"]),
            block_hash=_hash(item["blockHash"]),
            ok=_number(item["status"]) == 1,
            gas_used=_number(item["gasUsed"]),
            gas_price=_number(item.get("effectiveGasPrice", "0x0")),
            contract=_hash(item["contractAddress"], 20) if item.get("contractAddress") else None,
        )
    except (KeyError, TypeError) as error:
        raise BadAnswer("a receipt lacks fields") from error
