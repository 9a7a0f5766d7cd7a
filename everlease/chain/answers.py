"""JSON-RPC answers → results or typed errors, whatever carried them."""

from typing import Any

from everlease.chain.errors import (
    AlreadyKnown,
    BadAnswer,
    InsufficientFunds,
    NonceTooLow,
    RpcRefused,
    TooManyResults,
    Underpriced,
)
from everlease.chain.reverts import decode_revert

_SENDING: tuple[tuple[str, type[RpcRefused]], ...] = (
    ("nonce too low", NonceTooLow),
    ("already known", AlreadyKnown),
    ("already imported", AlreadyKnown),
    ("known transaction", AlreadyKnown),
    ("underpriced", Underpriced),
    ("fee too low", Underpriced),
    ("less than block base fee", Underpriced),
    ("insufficient funds", InsufficientFunds),
)
"""What geth, Nethermind, Erigon, Besu, Reth and Anvil say, in lower case."""
_TOO_MANY = ("too many", "more than", "limit", "block range", "response size", "too large", "range is too")


def result_of(method: str, item: dict[str, Any]) -> Any:
    """An answer's result, or its error as a ChainError (returned, not raised: an item of a batch)."""
    error = item.get("error")
    if error is None:
        if "result" not in item:
            return BadAnswer(f"{method}: neither result nor error in the answer")
        return item["result"]
    if not isinstance(error, dict):
        return RpcRefused(method, 0, str(error)[:500])
    code, message, data = error.get("code", 0), str(error.get("message", ""))[:500], error.get("data")
    text = message.lower()
    if method == "eth_getLogs":
        kind = TooManyResults if code == -32005 or any(part in text for part in _TOO_MANY) else RpcRefused
        return kind(method, code, message, data)
    if method == "eth_sendRawTransaction":
        for part, refused in _SENDING:
            if part in text:
                return refused(method, code, message, data)
    if code == 3 or "revert" in text:
        return decode_revert(data, message)
    return RpcRefused(method, code, message, data)
