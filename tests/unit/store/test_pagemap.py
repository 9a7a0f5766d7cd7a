from __future__ import annotations

import struct
from contextlib import suppress
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everlease.store.pagemap import PAGE_BYTES, PagemapError, aligned_blocks, parse_pagemap, space_of

MAGIC = bytes.fromhex("1943565425400856")
# Records as CRIU 4.2 wrote them: vaddr 4096, two pages, in the parent; vaddr 12288, one page, present and lazy.
PARENT_TWO = bytes.fromhex("088020100020012802")
PRESENT_ONE = bytes.fromhex("088060100020062801")


def varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def framed(message: bytes) -> bytes:
    return struct.pack("<I", len(message)) + message


def entry(vaddr: int, pages: int, flags: int | None = 4, *, old: bool = False) -> bytes:
    count = b"\x10" + varint(pages) if old else b"\x10\x00"
    tail = b"" if old else b"\x28" + varint(pages)
    return framed(b"\x08" + varint(vaddr) + count + (b"" if flags is None else b"\x20" + varint(flags)) + tail)


def image(*entries: bytes, pages_id: int = 1) -> bytes:
    return MAGIC + framed(b"\x08" + varint(pages_id)) + b"".join(entries)


def test_criu_4_2_records() -> None:
    pagemap = parse_pagemap(image(framed(PARENT_TWO), framed(PRESENT_ONE), pages_id=7))
    assert pagemap.pages_id == 7
    assert pagemap.runs == ((12288, PAGE_BYTES),)


def test_an_image_that_criu_4_2_1_wrote() -> None:
    """Three MiB of shared memory, of which the end is not present."""
    data = bytes.fromhex(
        "1943565425400856020000000801090000000800100020042880020b0000"
        "0008808040100020042880020c000000088080800110002004288002"
    )
    assert parse_pagemap(data).runs == ((0, 3 << 20),)


def test_adjacent_entries_join_and_holes_part() -> None:
    data = image(entry(0x10000, 2), entry(0x12000, 3, 6), entry(0x20000, 1), entry(0x21000, 4, 0))
    assert parse_pagemap(data).runs == ((0x10000, 5 * PAGE_BYTES), (0x20000, PAGE_BYTES))


def test_old_images_without_flags_and_with_the_32_bit_count() -> None:
    assert parse_pagemap(image(entry(0x1000, 3, None, old=True))).runs == ((0x1000, 3 * PAGE_BYTES),)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        MAGIC,
        b"\0" * 64,
        image() + b"\x05\0\0",
        image() + struct.pack("<I", 1 << 31),
        image(framed(b"\x08" + b"\xff" * 11)),
        image(framed(b"\x10\x01")),
        image(entry(0x1001, 1)),
        image(entry(0x1000, (1 << 64) - 1)),
        image(framed(b"\x0b")),
        image(framed(b"\x12\xff\x01")),
    ],
)
def test_malformed_images_are_refused(data: bytes) -> None:
    with pytest.raises(PagemapError):
        parse_pagemap(data)


@given(st.binary(max_size=200))
def test_any_bytes_parse_or_are_refused(tail: bytes) -> None:
    for data in (tail, image() + tail, image(framed(tail))):
        with suppress(PagemapError):
            parse_pagemap(data)


def test_spaces() -> None:
    assert space_of("pagemap-17.img") == "pid:17"
    assert space_of("pagemap-shmem-4026.img") == "shmem:4026"
    assert space_of("pages-1.img") is None


RUNS = st.lists(st.tuples(st.integers(0, 200), st.integers(1, 60)), max_size=20).map(
    lambda pairs: [(start * PAGE_BYTES, count * PAGE_BYTES) for start, count in pairs]
)


@given(RUNS, st.sampled_from([1, 2, 8, 32]))
def test_blocks_cover_the_file_within_their_windows(runs: list[tuple[int, int]], pages: int) -> None:
    block = pages * PAGE_BYTES
    blocks = list(aligned_blocks(runs, block))
    assert sum(length for _, length in blocks) == sum(length for _, length in runs)
    assert all(0 < length <= block - address % block for address, length in blocks)


def test_a_page_more_moves_no_other_block() -> None:
    block = 8 * PAGE_BYTES
    before = list(aligned_blocks([(0, 40 * PAGE_BYTES), (0x100000, 20 * PAGE_BYTES)], block))
    after = list(aligned_blocks([(0, 41 * PAGE_BYTES), (0x100000, 20 * PAGE_BYTES)], block))
    assert set(before) <= set(after)
    assert all(left < right for (left, _), (right, _) in pairwise(after))
