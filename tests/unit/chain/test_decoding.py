"""Events of static types are read word by word; eth-abi, which reads the dynamic ones, must say the same."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everlease.chain import abi
from everlease.chain._generated.events import EVENTS
from everlease.chain.base import Log
from everlease.chain.errors import BadAnswer

KINDS = list(EVENTS.values())
near = st.one_of(
    st.binary(min_size=32, max_size=32),
    st.integers(0, 2**20).map(lambda number: number.to_bytes(32, "big")),
    st.binary(min_size=20, max_size=20).map(lambda address: bytes(12) + address),
    st.sampled_from([2**32, 2**64, 2**128, 2**160]).map(lambda top: (top - 1).to_bytes(32, "big")),
    st.binary(max_size=40),
)


def outcome(log: Log) -> Any:
    try:
        return abi.decode_event(log)
    except BadAnswer as error:
        return str(error)


@given(st.sampled_from(KINDS), st.lists(near, max_size=4), st.lists(near, max_size=14), st.booleans())
def test_both_decoders_agree(kind: Any, topics: list[bytes], words: list[bytes], fitting: bool) -> None:
    if fitting:
        indexed = sum(field.indexed for field in kind.FIELDS)
        topics = (topics * 4 + [bytes(32)] * 4)[:indexed]
        words = (words * 14 + [bytes(32)] * 14)[: len(kind.FIELDS) - indexed]
    heads = ("0x" + kind.TOPIC0.hex(), *("0x" + topic.hex() for topic in topics))
    log = Log("0x" + "11" * 20, heads, b"".join(words), 1, "0x" + "22" * 32, "0x" + "33" * 32, 0)
    fast = outcome(log)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(abi, "_static_readers", lambda _: None)
        assert fast == outcome(log)
