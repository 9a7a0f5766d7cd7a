"""Encoding by the committed ABIs: call data, call results, logs. Sources: Solidity ABI v2, _generated/*.json."""

import json
from collections.abc import Callable
from functools import cache
from importlib import resources
from typing import Any

from eth_abi import abi
from eth_abi.exceptions import DecodingError
from eth_utils.crypto import keccak

from everlease.chain._generated.events import EVENTS, Event
from everlease.chain.base import Log
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


def decode_event(log: Log) -> Event | None:
    """The event that a log of our contracts holds; None for a foreign one; BadAnswer for a broken one."""
    kind = EVENTS.get(bytes.fromhex(log.topics[0][2:])) if log.topics else None
    if kind is None:
        return None
    readers = _static_readers(kind.TOPIC0)
    if readers is not None:
        try:
            return _read_static(kind, readers, log)
        except ValueError as error:
            raise BadAnswer(f"a log of {kind.__name__} in block {log.block_number} is broken") from error
    indexed = [field for field in kind.FIELDS if field.indexed]
    plain = [field for field in kind.FIELDS if not field.indexed]
    try:
        topics = [
            abi.decode([f.abi_type], bytes.fromhex(t[2:]))[0] for f, t in zip(indexed, log.topics[1:], strict=True)
        ]
        found = dict(zip((field.name for field in indexed), topics, strict=True))
        found |= zip((f.name for f in plain), abi.decode([_lenient(f.abi_type) for f in plain], log.data), strict=True)
        for field in kind.FIELDS:
            if field.abi_type == "string":
                found[field.name] = found[field.name].decode("utf-8", "replace").replace("\0", "\ufffd")
            if field.enum is not None:
                found[field.name] = field.enum(found[field.name])
    except (DecodingError, ValueError, OverflowError) as error:
        raise BadAnswer(f"a log of {kind.__name__} in block {log.block_number} is broken") from error
    return kind(**found)


_Reader = Callable[[bytes], Any]


def _read_static(
    kind: type[Event], readers: tuple[tuple[_Reader, ...], tuple[_Reader, ...], tuple[int, ...]], log: Log
) -> Event:
    """An event of static types alone: one 32-byte word per field, several times faster than through eth-abi."""
    of_topics, of_data, order = readers
    if len(log.topics) != len(of_topics) + 1 or len(log.data) < 32 * len(of_data):
        raise ValueError("too few words")
    values = [read(bytes.fromhex(topic[2:])) for read, topic in zip(of_topics, log.topics[1:], strict=True)]
    data = log.data
    values += [read(data[32 * at : 32 * at + 32]) for at, read in enumerate(of_data)]
    return kind(*[values[at] for at in order])


@cache
def _static_readers(topic: bytes) -> tuple[tuple[_Reader, ...], tuple[_Reader, ...], tuple[int, ...]] | None:
    """How to read topics and words of the data, and where each field's value then is; None if any is dynamic."""
    declared = EVENTS[topic].FIELDS
    fields = sorted(declared, key=lambda field: not field.indexed)
    whole: list[_Reader] = []
    for field in fields:
        reader = _word_reader(field.abi_type)
        if reader is None:
            return None
        whole.append(reader if field.enum is None else _enum_reader(reader, field.enum))
    count = sum(field.indexed for field in fields)
    return tuple(whole[:count]), tuple(whole[count:]), tuple(fields.index(field) for field in declared)


def _word_reader(kind: str) -> _Reader | None:
    """A reader of one 32-byte word that refuses what eth-abi refuses; None for a type that is not static."""
    if kind == "bytes32":
        return _bytes32
    if kind == "address":
        return _address
    if kind == "bool":
        return lambda word: bool(_bounded(word, 1))
    if kind.startswith("uint") and kind[4:].isdigit():
        top = 2 ** int(kind[4:]) - 1
        return lambda word: _bounded(word, top)
    return None


def _enum_reader(read: _Reader, enum: Callable[[int], Any]) -> _Reader:
    return lambda word: enum(read(word))


def _bytes32(word: bytes) -> bytes:
    if len(word) != 32:
        raise ValueError("not a word")
    return word


def _address(word: bytes) -> str:
    if len(word) != 32 or any(word[:12]):
        raise ValueError("not an address")
    return "0x" + word[12:].hex()


def _bounded(word: bytes, top: int) -> int:
    number = int.from_bytes(word, "big")
    if len(word) != 32 or number > top:
        raise ValueError("out of range")
    return number


def _lenient(kind: str) -> str:
    """Strings are read as bytes (encoded alike): nothing on chain keeps anyone from emitting invalid UTF-8."""
    return "bytes" if kind == "string" else kind
