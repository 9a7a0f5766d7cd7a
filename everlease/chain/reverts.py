"""Revert data → CallReverted with the custom error's name and values. Source: Solidity ABI, error encoding."""

from typing import Any

from eth_abi import abi
from eth_abi.exceptions import DecodingError

from everlease.chain._generated.errors import ERRORS
from everlease.chain.errors import CallReverted

_ERROR_STRING = bytes.fromhex("08c379a0")
_PANIC = bytes.fromhex("4e487b71")


def decode_revert(data: Any, message: str = "") -> CallReverted:
    """The typed error for ``data`` (0x-hex, or a dict that holds it); ``message`` is what the node said about it."""
    text = data.get("data", "") if isinstance(data, dict) else data
    try:
        raw = bytes.fromhex(str(text or "").removeprefix("0x"))
    except ValueError:
        raw = b""
    shown = "0x" + raw[:1024].hex()
    selector, body = raw[:4], raw[4:]
    try:
        if selector == _ERROR_STRING:
            return CallReverted("Error", {"reason": abi.decode(["string"], body)[0]}, shown)
        if selector == _PANIC:
            return CallReverted("Panic", {"code": abi.decode(["uint256"], body)[0]}, shown)
        known = ERRORS.get(selector)
        if known is not None:
            found = abi.decode([type_ for _, type_ in known.parameters], body)
            names = [name for name, _ in known.parameters]
            return CallReverted(
                known.name,
                {n: "0x" + v.hex() if isinstance(v, bytes) else v for n, v in zip(names, found, strict=True)},
                shown,
            )
    except (DecodingError, UnicodeDecodeError, OverflowError):
        pass
    return CallReverted("Unknown", {"message": message} if message else {}, shown)
