"""The bloom filter: never denies what is there, denies most of what is not."""

from hypothesis import given
from hypothesis import strategies as st

from everlease.chain.bloom import EMPTY, bloom_of, may_hold

items = st.lists(st.binary(min_size=20, max_size=32), min_size=1, max_size=20)


def test_an_item_sets_at_most_three_bits() -> None:
    assert 1 <= int.from_bytes(bloom_of([b"testtest"]), "big").bit_count() <= 3


@given(items, items)
def test_what_is_there_is_never_denied(addresses: list[bytes], topics: list[bytes]) -> None:
    bloom = bloom_of([*addresses, *topics])
    assert may_hold(bloom, [b"\xff" * 20, addresses[0]], [b"\xee" * 32, topics[-1]])


@given(items)
def test_an_empty_bloom_denies_all(addresses: list[bytes]) -> None:
    assert not may_hold(EMPTY, addresses, addresses)


def test_a_sparse_bloom_denies_strangers() -> None:
    bloom = bloom_of([b"\1" * 20, b"\2" * 32])
    assert not may_hold(bloom, [b"\3" * 20], [b"\2" * 32])
    assert not may_hold(bloom, [b"\1" * 20], [b"\4" * 32])
