from __future__ import annotations

import os
from dataclasses import replace

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from everlease.store.cid import cid_of
from everlease.store.errors import BlockCorrupt, KeyMissing
from everlease.store.sealing import OVERHEAD_BYTES, JobKeys, _unpack

KEYS = JobKeys(1, "0x" + "11" * 20, "0x" + "22" * 32, 1, {1: b"k" * 32}, b"d" * 32)


@given(st.binary(max_size=3000))
def test_what_is_sealed_opens(payload: bytes) -> None:
    stored = KEYS.seal(payload)
    assert KEYS.open(cid_of(stored), 1, stored, len(payload)) == payload
    assert len(stored) <= len(payload) + OVERHEAD_BYTES


def test_equal_payloads_have_equal_fingerprints_and_different_blocks() -> None:
    assert KEYS.seal(b"x" * 100) != KEYS.seal(b"x" * 100)
    assert KEYS.fingerprint(b"x") == KEYS.fingerprint(b"x")
    assert KEYS.fingerprint(b"x") != replace(KEYS, dedup_secret=b"e" * 32).fingerprint(b"x")


def test_compressible_payloads_shrink_and_noise_does_not_grow_beyond_the_overhead() -> None:
    assert len(KEYS.seal(b"abcd" * 20_000)) < 1000
    assert len(KEYS.seal(os.urandom(80_000))) == 80_000 + OVERHEAD_BYTES


@pytest.mark.parametrize(
    "changes",
    [
        {"chain_id": 2},
        {"contract": "0x" + "12" * 20},
        {"job_id": "0x" + "23" * 32},
        {"keys": {1: b"j" * 32}},
    ],
)
def test_a_block_opens_for_its_own_job_and_key_only(changes: dict[str, object]) -> None:
    stored = KEYS.seal(b"secret")
    with pytest.raises(BlockCorrupt):
        replace(KEYS, **changes).open(cid_of(stored), 1, stored, 6)  # type: ignore[arg-type]


def test_a_block_is_bound_to_its_generation() -> None:
    same_key = replace(KEYS, keys={1: b"k" * 32, 2: b"k" * 32})
    stored = KEYS.seal(b"secret")
    with pytest.raises(BlockCorrupt):
        same_key.open(cid_of(stored), 2, stored, 6)
    with pytest.raises(KeyMissing):
        KEYS.open(cid_of(stored), 2, stored, 6)


@given(st.integers(0, 200), st.integers(1, 255))
def test_any_flipped_byte_is_noticed(where: int, flip: int) -> None:
    stored = bytearray(KEYS.seal(b"some payload that is a little longer"))
    stored[where % len(stored)] ^= flip
    with pytest.raises(BlockCorrupt):
        KEYS.open(cid_of(bytes(stored)), 1, bytes(stored), 100)


@pytest.mark.parametrize("size", [0, 11, 28])
def test_a_truncated_block_is_noticed(size: int) -> None:
    stored = KEYS.seal(b"payload")[:size]
    with pytest.raises(BlockCorrupt):
        KEYS.open(cid_of(stored), 1, stored, 100)


def test_a_payload_longer_than_promised_is_refused_before_it_is_unpacked() -> None:
    stored = KEYS.seal(bytes(1 << 20))
    with pytest.raises(BlockCorrupt):
        KEYS.open(cid_of(stored), 1, stored, 1000)


def test_zstd_frames_that_hide_their_size_or_are_broken_are_refused() -> None:
    hidden = zstandard.ZstdCompressor(write_content_size=False).compress(bytes(5000))
    cid = cid_of(b"")
    for body in (b"\x01" + hidden, b"\x01" + os.urandom(50), b"\x02abc", b""):
        with pytest.raises(BlockCorrupt):
            _unpack(cid, body, 100)


def test_keys_do_not_show_in_a_log() -> None:
    assert "kkk" not in repr(KEYS)
    assert "ddd" not in repr(KEYS)
