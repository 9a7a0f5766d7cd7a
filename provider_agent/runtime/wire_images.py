"""Read the few fields we need from CRIU's image files: protobuf messages after magic numbers (criu.org/Images)."""

import struct
from collections.abc import Iterator
from pathlib import Path

MAX_MESSAGE, MAX_IMAGE = 64 << 20, 256 << 20
COMMON_MAGIC = (bytes.fromhex("19435654"), bytes.fromhex("40591055"))
Field = tuple[int, int | bytes]


def fields(message: bytes) -> Iterator[Field]:
    """(field number, value) of a protobuf message: int for varints and fixed widths, bytes else. Raises ValueError."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        kind = key & 7
        if kind == 0:
            value, at = _varint(message, at)
            yield key >> 3, value
            continue
        if kind == 2:
            width, at = _varint(message, at)
        elif kind in {1, 5}:
            width = 8 if kind == 1 else 4
        else:
            raise ValueError(f"protobuf wire type {kind} at byte {at}")
        chunk = message[at : at + width]
        if len(chunk) != width:
            raise ValueError("a protobuf message is truncated")
        at += width
        yield key >> 3, chunk if kind == 2 else int.from_bytes(chunk, "little")


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(message) or shift > 63:
            raise ValueError("a protobuf number is truncated")
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


def messages(path: Path) -> Iterator[bytes]:
    """The messages of an image file: two magic numbers (u32 each), then each message after its length (u32). Raises
    ValueError.
    """
    if path.stat().st_size > MAX_IMAGE:
        # A sparse file costs its author nothing and us all our memory.
        raise ValueError(f"{path.name} is larger than {MAX_IMAGE} bytes")
    raw = path.read_bytes()
    if raw[:4] not in COMMON_MAGIC:
        # CRIU would read such an image as one of an older form, and see other messages than we do.
        raise ValueError(f"{path.name} has no image's magic number")
    at = 8
    while at < len(raw):
        if at + 4 > len(raw):
            raise ValueError(f"{path.name} is truncated")
        (size,) = struct.unpack_from("<I", raw, at)
        at += 4
        if size > MAX_MESSAGE or at + size > len(raw):
            raise ValueError(f"{path.name} is truncated")
        yield raw[at : at + size]
        at += size


def child(message: bytes, number: int) -> bytes | None:
    """The embedded message or string of this field number, else None. Raises ValueError where it comes twice: CRIU's
    reader would merge the two.
    """
    found = None
    for key, value in fields(message):
        if key == number and isinstance(value, bytes):
            if found is not None:
                raise ValueError(f"field {number} comes twice in one message")
            found = value
    return found


def numbers(message: bytes, number: int) -> list[int]:
    """Every integer of this field number, packed or not."""
    found: list[int] = []
    for key, value in fields(message):
        if key != number:
            continue
        if isinstance(value, int):
            found.append(value)
        else:
            at = 0
            while at < len(value):
                item, at = _varint(value, at)
                found.append(item)
    return found


def frozen_seconds(images: Path) -> float:
    """How long the tasks were frozen: StatsEntry.dump.(freezing_time + frozen_time), in microseconds, of stats-dump."""
    for path in (images / "stats-dump", images.parent / "work" / "stats-dump"):
        if path.exists():
            for message in messages(path):
                dump = child(message, 1)
                if dump is not None:
                    return (sum(numbers(dump, 1)) + sum(numbers(dump, 2))) / 1e6
    return 0.0
