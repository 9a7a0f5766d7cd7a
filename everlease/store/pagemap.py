"""CRIU's pagemap images, read just far enough to know which virtual address each page of `pages-N.img` has.

Format: CRIU images/pagemap.proto and image.c. Two u32 LE magics, then messages framed by a u32 LE size:
one pagemap_head {pages_id = 1}, then pagemap_entry {vaddr = 1, compat_nr_pages = 2, in_parent = 3, flags = 4,
nr_pages = 5}.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

PAGE_BYTES = 4096
IMG_COMMON_MAGIC = 0x54564319
PAGEMAP_MAGIC = 0x56084025
PE_PARENT, PE_PRESENT = 1, 4
MAX_PAGEMAP_BYTES = 64 << 20
_MAX_MESSAGE_BYTES = 1 << 20
_NAME = re.compile(r"pagemap-(shmem-)?(\d{1,20})\.img")


class PagemapError(ValueError):
    """Bytes that are not a pagemap image this reader understands."""


@dataclass(frozen=True, slots=True)
class Pagemap:
    """`runs`: (virtual address, bytes) of what is in `pages-<pages_id>.img`, in file order, adjacent entries joined."""

    pages_id: int
    runs: tuple[tuple[int, int], ...]

    @property
    def size(self) -> int:
        """Bytes that the pages file must have."""
        return sum(length for _, length in self.runs)


def space_of(name: str) -> str | None:
    """`pid:<n>` or `shmem:<id>` for a pagemap image's file name, None for any other file."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    return f"{'shmem' if match[1] else 'pid'}:{int(match[2])}"


def parse_pagemap(data: bytes) -> Pagemap:
    """The pagemap in an image file's bytes. Raises PagemapError."""
    if len(data) > MAX_PAGEMAP_BYTES:
        raise PagemapError("the pagemap image is too large")
    if len(data) < 8 or struct.unpack_from("<II", data) != (IMG_COMMON_MAGIC, PAGEMAP_MAGIC):
        raise PagemapError("the magic is not a pagemap's")
    messages = _messages(data, 8)
    head = next(messages, None)
    if head is None or 1 not in head:
        raise PagemapError("the pagemap has no head")
    runs: list[tuple[int, int]] = []
    for entry in messages:
        if 1 not in entry:
            raise PagemapError("a pagemap entry has no address")
        flags = entry.get(4, 0 if entry.get(3) else PE_PRESENT)
        if not flags & PE_PRESENT or flags & PE_PARENT or entry.get(3):
            continue
        # CRIU 4.2 writes the count to field 5 and zero to field 2.
        start, length = entry[1], entry.get(5, entry.get(2, 0)) * PAGE_BYTES
        if start % PAGE_BYTES or not length or start + length > 1 << 64:
            raise PagemapError("a pagemap entry is out of range")
        if runs and sum(runs[-1]) == start:
            runs[-1] = (runs[-1][0], runs[-1][1] + length)
        else:
            runs.append((start, length))
    return Pagemap(head[1], tuple(runs))


def aligned_blocks(runs: Sequence[tuple[int, int]], block_bytes: int) -> Iterator[tuple[int, int]]:
    """(address of the first page, bytes) of each block, in file order; one per aligned window of `block_bytes`."""
    first = window = -1
    length = 0
    end = 0
    for start, size in runs:
        address, remaining = start, size
        while remaining:
            step = min(remaining, block_bytes - address % block_bytes)
            # An address that falls back starts anew: a window may come twice in a strange pagemap.
            if address // block_bytes != window or address < end:
                if length:
                    yield first, length
                first, window, length = address, address // block_bytes, 0
            length += step
            address += step
            end = address
            remaining -= step
    if length:
        yield first, length


def _messages(data: bytes, offset: int) -> Iterator[dict[int, int]]:
    while offset < len(data):
        if offset + 4 > len(data):
            raise PagemapError("the pagemap is cut short")
        (size,) = struct.unpack_from("<I", data, offset)
        offset += 4
        if size > _MAX_MESSAGE_BYTES or offset + size > len(data):
            raise PagemapError("the pagemap is cut short")
        yield _varint_fields(data[offset : offset + size])
        offset += size


def _varint_fields(message: bytes) -> dict[int, int]:
    """The varint fields of a protobuf message; fields of other wire types are stepped over."""
    fields: dict[int, int] = {}
    offset = 0
    while offset < len(message):
        key, offset = _varint(message, offset)
        number, wire_type = key >> 3, key & 7
        if wire_type == 0:
            fields[number], offset = _varint(message, offset)
        elif wire_type == 1:
            offset += 8
        elif wire_type == 5:
            offset += 4
        elif wire_type == 2:
            size, offset = _varint(message, offset)
            offset += size
        else:
            raise PagemapError(f"wire type {wire_type} is not used in pagemaps")
    if offset != len(message):
        raise PagemapError("a pagemap message is cut short")
    return fields


def _varint(data: bytes, offset: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if offset >= len(data) or shift > 63:
            raise PagemapError("a varint is cut short or too long")
        byte = data[offset]
        value |= (byte & 0x7F) << shift
        offset += 1
        if byte < 0x80:
            if value >= 1 << 64:
                raise PagemapError("a varint does not fit 64 bits")
            return value, offset
        shift += 7
