"""Encoding by the committed ABIs: call data and call results. Sources: Solidity ABI v2, _generated/*.json."""

import json
from functools import cache
from importlib import resources
from typing import Any

from eth_abi import abi
from eth_abi.exceptions import DecodingError
from eth_utils.crypto import keccak

from everlease.chain.errors import BadAnswer


@cache
def artifact(contract: str) -> dict[str, Any]:
    """The committed compiler output of a contract: ``abi`` and ``bytecode``."""
    path = resources.files("everlease.chain._generated") / f"{contract}.json"
    found: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return found


def abi_type(item: dict[str, Any]) -> str:
    """An ABI parameter's canonical type, tuples spelled out."""
    kind: str = item["type"]
    if not kind.startswith("tuple"):
        return kind
    return "(" + ",".join(abi_type(part) for part in item["components"]) + ")" + kind.removeprefix("tuple")


@cache
def _function(contract: str, name: str) -> tuple[bytes, tuple[str, ...], tuple[str, ...]]:
    """Selector, input types and output types of a function; our contracts overload none."""
    for item in artifact(contract)["abi"]:
        if item["type"] == "function" and item["name"] == name:
            inputs = tuple(abi_type(part) for part in item["inputs"])
            outputs = tuple(abi_type(part) for part in item["outputs"])
            return bytes(keccak(text=f"{name}({','.join(inputs)})")[:4]), inputs, outputs
    raise KeyError(f"{contract} has no function {name}")


def selector_names() -> dict[bytes, str]:
    """Selector → function name over the escrow, staking and the asset."""
    found = {}
    for contract in ("LeaseEscrow", "ProviderStaking", "MockDollar"):
        for item in artifact(contract)["abi"]:
            if item["type"] == "function":
                found[_function(contract, item["name"])[0]] = str(item["name"])
    return found


def encode_call(contract: str, name: str, *arguments: Any) -> bytes:
    """Call data of ``contract.name(*arguments)``; structs are tuples."""
    selector, inputs, _ = _function(contract, name)
    return selector + bytes(abi.encode(inputs, arguments))


def decode_result(contract: str, name: str, data: bytes) -> tuple[Any, ...]:
    """What a view returned; raises BadAnswer where it is something else (no contract there, for one)."""
    _, _, outputs = _function(contract, name)
    try:
        return tuple(abi.decode(outputs, data))
    except (DecodingError, OverflowError) as error:
        raise BadAnswer(f"{contract}.{name} did not answer as {contract} does: is it deployed there?") from error


def encode_constructor(contract: str, *arguments: Any) -> bytes:
    """Creation code with its arguments."""
    inputs = [
        abi_type(part) for item in artifact(contract)["abi"] if item["type"] == "constructor" for part in item["inputs"]
    ]
    code = bytes.fromhex(artifact(contract)["bytecode"].removeprefix("0x"))
    return code + bytes(abi.encode(inputs, arguments))
