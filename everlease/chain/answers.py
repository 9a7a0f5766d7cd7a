"""JSON-RPC answers → results or typed errors, whatever carried them."""

from typing import Any

import msgspec

from everlease.chain.errors import (
    AlreadyKnown,
    BadAnswer,
    ChainError,
    InsufficientFunds,
    NonceTooLow,
    RpcRefused,
    TooManyResults,
    Underpriced,
)
from everlease.chain.reverts import decode_revert

_SENDING: tuple[tuple[str, type[RpcRefused]], ...] = (
    ("nonce too low", NonceTooLow),
    ("oldnonce", NonceTooLow),
    ("already known", AlreadyKnown),
    ("alreadyknown", AlreadyKnown),
    ("already imported", AlreadyKnown),
    ("known transaction", AlreadyKnown),
    ("underpriced", Underpriced),
    ("fee too low", Underpriced),
    ("feetoolow", Underpriced),
    ("replacementnotallowed", Underpriced),
    ("less than block base fee", Underpriced),
    ("insufficient funds", InsufficientFunds),
    ("insufficientfunds", InsufficientFunds),
)
"""What geth, Nethermind, Erigon, Besu, Reth and Anvil say, in lower case."""
_TOO_MANY = ("too many", "more than", "limit", "block range", "response size", "too large", "range is too")


class Item(msgspec.Struct):
    """One answer; its result stays text until it is known what it has to be."""

    id: Any = None
    result: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    error: Any = None


ITEMS: msgspec.json.Decoder[list[Item] | Item] = msgspec.json.Decoder(list[Item] | Item)
ANYTHING: msgspec.json.Decoder[Any] = msgspec.json.Decoder()


def result_of(method: str, item: Item, into: msgspec.json.Decoder[Any] = ANYTHING) -> Any:
    """An answer's result, or its error as a ChainError (returned, not raised: an item of a batch)."""
    if item.error is not None:
        return _refusal(method, item.error)
    if isinstance(item.result, msgspec.UnsetType):
        return BadAnswer(f"{method}: neither result nor error in the answer")
    try:
        return into.decode(item.result)
    except msgspec.DecodeError as error:
        return BadAnswer(f"{method}: {error}")


def _refusal(method: str, error: Any) -> ChainError:
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
