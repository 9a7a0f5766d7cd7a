"""Events of static types are read by a compiled layout; eth-abi, which reads the dynamic ones, must say the same."""

from typing import Any

import pytest
from eth_abi.exceptions import DecodingError
from hypothesis import given
from hypothesis import strategies as st

from everlease.chain._generated.enums import CreditReason
from everlease.chain._generated.events import EVENTS, Field
from everlease.chain.base import Log
from everlease.chain.errors import BadAnswer
from everlease.chain.event_codec import decode_event, decode_with_eth_abi, layout_of

KINDS = list(EVENTS.values())
near = st.one_of(
    st.binary(min_size=32, max_size=32),
    st.integers(0, 2**20).map(lambda number: number.to_bytes(32, "big")),
    st.binary(min_size=20, max_size=20).map(lambda address: bytes(12) + address),
    st.sampled_from([2**32, 2**64, 2**128, 2**160]).map(lambda top: (top - 1).to_bytes(32, "big")),
    st.binary(max_size=40),
)


BROKEN = object()


def log_of(head: str, topics: list[bytes], data: bytes) -> Log:
    heads = (head, *("0x" + topic.hex() for topic in topics))
    return Log("0x" + "11" * 20, heads, data, 1, "0x" + "22" * 32, "0x" + "33" * 32, 0)


def decoded(log: Log) -> Any:
    try:
        return decode_event(log)
    except BadAnswer:
        return BROKEN


def by_eth_abi(kind: Any, log: Log) -> Any:
    """What eth-abi makes of it; topics that are no words it would take or refuse as their length falls."""
    try:
        if {len(topic) for topic in log.topics} != {66}:
            return BROKEN
        return kind(*decode_with_eth_abi(kind, log))
    except (DecodingError, ValueError, OverflowError):
        return BROKEN


@given(st.sampled_from(KINDS), st.lists(near, max_size=4), st.lists(near, max_size=14), st.booleans())
def test_both_decoders_agree(kind: Any, topics: list[bytes], words: list[bytes], fitting: bool) -> None:
    if fitting:
        indexed = sum(field.indexed for field in kind.FIELDS)
        topics = (topics * 4 + [bytes(32)] * 4)[:indexed]
        words = (words * 14 + [bytes(32)] * 14)[: len(kind.FIELDS) - indexed]
    log = log_of("0x" + kind.TOPIC0.hex(), topics, b"".join(words))
    assert decoded(log) == by_eth_abi(kind, log)


static = st.one_of(
    st.sampled_from(["bytes32", "address", "bool"]), st.integers(1, 32).map(lambda size: f"uint{8 * size}")
)


@given(st.data(), st.lists(st.tuples(static, st.booleans()), min_size=1, max_size=8))
def test_any_static_event_is_read_alike(data: st.DataObject, types: list[tuple[str, bool]]) -> None:
    """Types that no event of ours has yet, topics and data in any order of the fields."""
    fields = tuple(Field(f"f{place}", kind, indexed) for place, (kind, indexed) in enumerate(types))
    kind = type("Made", (), {"FIELDS": fields})
    words = {field: data.draw(near.filter(lambda word: len(word) == 32)) for field in fields}
    topics = [words[field] for field in fields if field.indexed]
    log = log_of("0x" + "00" * 32, topics, b"".join(words[field] for field in fields if not field.indexed))
    layout = layout_of(fields)
    assert layout is not None
    try:
        expected: Any = decode_with_eth_abi(kind, log)  # type: ignore[arg-type]
    except DecodingError:
        with pytest.raises(ValueError, match="out of range"):
            layout.read(log)
        return
    assert list(layout.read(log)) == expected


def test_an_event_with_a_dynamic_field_has_no_layout() -> None:
    assert layout_of([Field("cid", "string", False)]) is None
    assert layout_of([Field("ids", "uint256[]", False)]) is None
    reason = layout_of([Field("reason", "uint8", False, CreditReason)])
    assert reason is not None
    assert list(reason.read(log_of("0x", [], (1).to_bytes(32, "big")))) == [CreditReason(1)]
