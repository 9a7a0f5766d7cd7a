"""Logs → events. Source: Solidity ABI v2, one 32-byte word per static field, indexed ones in topics.

Events of static types alone are read by a layout that is compiled once per event; the others by eth-abi.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import itemgetter
from struct import Struct
from typing import Any

from eth_abi import abi
from eth_abi.exceptions import DecodingError

from everlease.chain._generated.events import EVENTS, Event, Field
from everlease.chain.base import Log
from everlease.chain.errors import BadAnswer

_WORD = 32
_TOPIC_CHARACTERS = 2 + 2 * _WORD


def decode_event(log: Log) -> Event | None:
    """The event that a log of our contracts holds; None for a foreign one; BadAnswer for a broken one."""
    known = _KNOWN.get(log.topics[0]) if log.topics else None
    if known is None:
        return None
    kind, layout = known
    try:
        for topic in log.topics:
            if len(topic) != _TOPIC_CHARACTERS:
                raise ValueError("a topic is not a word")
        return kind(*(decode_with_eth_abi(kind, log) if layout is None else layout.read(log)))
    except (DecodingError, ValueError, OverflowError) as error:
        raise BadAnswer(f"a log of {kind.__name__} in block {log.block_number} is broken") from error


def decode_with_eth_abi(kind: type[Event], log: Log) -> list[Any]:
    """The values of an event's fields, of any type, in the order of the fields; raises what eth-abi raises."""
    indexed = [field for field in kind.FIELDS if field.indexed]
    plain = [field for field in kind.FIELDS if not field.indexed]
    topics = [abi.decode([f.abi_type], bytes.fromhex(t[2:]))[0] for f, t in zip(indexed, log.topics[1:], strict=True)]
    found = dict(zip((field.name for field in indexed), topics, strict=True))
    found |= zip((f.name for f in plain), abi.decode([_lenient(f.abi_type) for f in plain], log.data), strict=True)
    return [_shown(field, found[field.name]) for field in kind.FIELDS]


def _lenient(kind: str) -> str:
    """Strings are read as bytes (encoded alike): nothing on chain keeps anyone from emitting invalid UTF-8."""
    return "bytes" if kind == "string" else kind


def _shown(field: Field, value: Any) -> Any:
    if field.abi_type == "string":
        return value.decode("utf-8", "replace").replace("\0", "\ufffd")
    if field.abi_type == "bytes32":
        return _hex(value)
    return value if field.enum is None else field.enum(value)


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the fields of a static event lie in its topics (after the first) and data, laid end to end.

    ``padding``: the bits that must be zero, of all words as one number. ``finish``: what some values are yet to go
    through, by their place. ``order``: from the order of the words to that of the fields, where they differ.
    """

    topics: int
    size: int
    words: Struct
    padding: int
    finish: tuple[tuple[int, Callable[[Any], Any]], ...]
    order: Callable[[Sequence[Any]], Sequence[Any]] | None

    def read(self, log: Log) -> Sequence[Any]:
        """The values of the fields; raises ValueError where a word is missing or out of its type's range."""
        if len(log.topics) != self.topics + 1:
            raise ValueError("topics are missing or too many")
        raw = bytes.fromhex("".join([topic[2:] for topic in log.topics[1:]])) + log.data[: self.size]
        size = self.size
        if len(raw) < size:
            raise ValueError("words are missing")
        if int.from_bytes(raw[:size], "big") & self.padding:
            raise ValueError("a word is out of range")
        values = list(self.words.unpack_from(raw))
        for place, convert in self.finish:
            values[place] = convert(values[place])
        return values if self.order is None else self.order(values)


def layout_of(fields: Sequence[Field]) -> Layout | None:
    """How to read an event of these fields; None if one is of a type without a fixed size."""
    placed = sorted(fields, key=lambda field: not field.indexed)
    words = [_word(field.abi_type) for field in placed]
    padding, parts = 0, ">"
    finish: list[tuple[int, Callable[[Any], Any]]] = []
    for place, (field, word) in enumerate(zip(placed, words, strict=True)):
        if word is None:
            return None
        part, bits, convert = word
        parts += part
        padding = padding << 256 | (2**256 - 2**bits)
        if field.enum is not None:
            finish.append((place, field.enum))
        elif convert is not None:
            finish.append((place, convert))
    order = [placed.index(field) for field in fields]
    return Layout(
        topics=sum(field.indexed for field in fields),
        size=_WORD * len(placed),
        words=Struct(parts),
        padding=padding,
        finish=tuple(finish),
        order=None if order == sorted(order) else itemgetter(*order),
    )


def _word(kind: str) -> tuple[str, int, Callable[[Any], Any] | None] | None:
    """How one word of a static type is unpacked, how many of its bits may be set, and what makes it its value."""
    if kind == "bytes32":
        return "32s", 256, _hex
    if kind == "address":
        return "12x20s", 160, _hex
    if kind == "bool":
        return "31x?", 1, None
    if not kind.startswith("uint") or not kind[4:].isdigit():
        return None
    bits = int(kind[4:])
    for size, code in ((1, "B"), (2, "H"), (4, "I"), (8, "Q")):
        if bits <= 8 * size:
            return f"{_WORD - size}x{code}", bits, None
    return f"{_WORD - bits // 8}x{bits // 8}s", bits, int.from_bytes


def _hex(raw: bytes) -> str:
    return "0x" + raw.hex()


_KNOWN = {"0x" + topic.hex(): (kind, layout_of(kind.FIELDS)) for topic, kind in EVENTS.items()}
