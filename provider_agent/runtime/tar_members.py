"""Read a tar archive's headers in one form alone: POSIX pax (IEEE 1003.1-2001), as our own GNU tar writes it.

GNU tar unpacks what this has let through, so nothing may pass that two readers could take for different members: each
block of the file is a header in canonical form, the content of the member before it, or zeros after the last one.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

BLOCK = 512
MAX_RECORDS_BYTES = 16 << 20
MAX_REGIONS = 4_000_000
NUMBER = re.compile(rb"([0-7]*)[\0 ]*")
TEXT = re.compile(rb"([^\0]*)\0*")
MAGIC = b"ustar\x0000"
FILE, LINK, SYMLINK, CHARACTER, BLOCK_DEVICE, FOLDER, FIFO, RECORDS = (bytes([c]) for c in b"0123456x")
# Header fields by position (pax(1), "ustar Interchange Format"); 156 is the type, 257 the magic.
NUMBERS = ((100, 8), (108, 8), (116, 8), (124, 12), (136, 12), (148, 8), (329, 8), (337, 8))
SPARSE = {"GNU.sparse.major", "GNU.sparse.minor", "GNU.sparse.name", "GNU.sparse.realsize"}
KNOWN = SPARSE | {"path", "linkpath", "size", "uid", "gid", "uname", "gname", "mtime", "atime", "ctime"}
PREFIXES = ("SCHILY.xattr.", "SCHILY.acl.", "RHT.security.")


@dataclass(frozen=True)
class Member:
    """One member: every name that a reader may take it for, a link's targets, its type, a device's numbers."""

    names: tuple[str, ...]
    targets: tuple[str, ...]
    kind: bytes
    device: tuple[int, int]


def members(path: Path) -> Iterator[Member]:
    """The members of an archive, in order. Raises ValueError for whatever is not canonical, OSError."""
    with path.open("rb") as file:
        records: dict[str, bytes] = {}
        while True:
            header = _block(file)
            if header == bytes(BLOCK):
                if records:
                    raise ValueError("it ends within a member")
                return _end(file)
            kind, size = header[156:157], _numbers(header)[124]
            if kind == RECORDS:
                if records or not 0 < size <= MAX_RECORDS_BYTES:
                    raise ValueError("it has records out of place")
                records = _records(_content(file, size))
                continue
            yield _member(header, kind, size, records, file)
            records = {}


def _member(header: bytes, kind: bytes, size: int, records: dict[str, bytes], file: BinaryIO) -> Member:
    """One member, with its content skipped."""
    if kind not in (FILE, LINK, SYMLINK, CHARACTER, BLOCK_DEVICE, FOLDER, FIFO):
        raise ValueError(f"it has a member of type {kind!r}")
    if "size" in records:
        size = _decimal(records["size"])
    if kind != FILE and size:
        raise ValueError("it has content where none belongs")
    sparse = SPARSE & records.keys()
    if sparse and (sparse != SPARSE or kind != FILE):
        raise ValueError("it has a sparse file of an unknown form")
    start = file.tell()
    if sparse:
        _sparse(file, size, records)
    file.seek(start + size + -size % BLOCK)
    name, prefix, target = (_text(header[at : at + width]) for at, width in ((0, 100), (345, 155), (157, 100)))
    names = [prefix + b"/" + name if prefix else name]
    names += [records[key] for key in ("path", "GNU.sparse.name") if key in records]
    targets = [target, *([records["linkpath"]] if "linkpath" in records else [])]
    numbers = _numbers(header)
    decoded = tuple(raw.decode("utf-8", "surrogateescape") for raw in names)
    if kind != FOLDER and any(text.endswith("/") for text in decoded):
        raise ValueError("it has a file that is named as a folder")
    linked = tuple(raw.decode("utf-8", "surrogateescape") for raw in targets)
    return Member(decoded, linked if kind in (LINK, SYMLINK) else (), kind, (numbers[329], numbers[337]))


def _block(file: BinaryIO) -> bytes:
    block = file.read(BLOCK)
    if len(block) != BLOCK:
        raise ValueError("it is cut off")
    return block


def _end(file: BinaryIO) -> None:
    """Nothing but zeros may follow the end, or another reader could go on there."""
    _block(file)
    file.seek(-BLOCK, 1)
    while chunk := file.read(1 << 20):
        if chunk.count(0) != len(chunk):
            raise ValueError("it goes on after its end")


def _numbers(header: bytes) -> dict[int, int]:
    """The header's numbers by position: octal digits alone, not the older forms, and the right checksum."""
    if header[257:265] != MAGIC:
        raise ValueError("it has a header of another form")
    found = {}
    for at, width in NUMBERS:
        match = NUMBER.fullmatch(header, at, at + width)
        if match is None:
            raise ValueError("it has a number of another form")
        found[at] = int(match[1] or b"0", 8)
    if found[148] != sum(header) - sum(header[148:156]) + 8 * 0x20:
        raise ValueError("it has a header with a wrong checksum")
    return found


def _text(field: bytes) -> bytes:
    match = TEXT.fullmatch(field)
    if match is None:
        raise ValueError("it has a name with a gap")
    return match[1]


def _decimal(raw: bytes) -> int:
    if not re.fullmatch(rb"\d{1,18}", raw):
        raise ValueError("it has a record with no number")
    return int(raw)


def _content(file: BinaryIO, size: int) -> bytes:
    raw = file.read(size + -size % BLOCK)
    if len(raw) != size + -size % BLOCK or raw[size:].strip(b"\0"):
        raise ValueError("it is cut off")
    return raw[:size]


def _records(raw: bytes) -> dict[str, bytes]:
    """The records of an extended header, "LENGTH KEY=VALUE\\n" each, every key once."""
    found: dict[str, bytes] = {}
    at = 0
    while at < len(raw):
        match = re.compile(rb"([1-9]\d{0,8}) ([^=\0\n]+)=").match(raw, at)
        end = at + int(match[1]) if match else 0
        if match is None or end > len(raw) or end <= match.end() or raw[end - 1 : end] != b"\n":
            raise ValueError("it has a record of another form")
        key, value = os.fsdecode(match[2]), raw[match.end() : end - 1]
        attribute = key.startswith(PREFIXES)
        if key in found or not (key in KNOWN or attribute) or (b"\0" in value and not attribute):
            raise ValueError(f"it has a record {key[:80]!r} out of place")
        found[key], at = value, end
    return found


def _sparse(file: BinaryIO, size: int, records: dict[str, bytes]) -> None:
    """A sparse file's map (GNU tar's format 1.0) must account for its content exactly, or a reader runs past it."""
    if (records["GNU.sparse.major"], records["GNU.sparse.minor"]) != (b"1", b"0"):
        raise ValueError("it has a sparse file of an unknown form")
    real, start = _decimal(records["GNU.sparse.realsize"]), file.tell()
    count = _decimal(_line(file, start + size))
    if count > MAX_REGIONS:
        raise ValueError("it has a sparse file with too many regions")
    reached = stored = 0
    for _ in range(count):
        offset, length = (_decimal(_line(file, start + size)) for _ in range(2))
        if offset < reached or (length and stored % BLOCK):
            raise ValueError("it has a sparse file whose regions overlap")
        reached, stored = offset + length, stored + length
    map_bytes = file.tell() - start
    if reached > real or map_bytes + -map_bytes % BLOCK + stored != size:
        raise ValueError("it has a sparse file whose map is wrong")


def _line(file: BinaryIO, limit: int) -> bytes:
    line = file.readline(24)
    if not line.endswith(b"\n") or file.tell() > limit:
        raise ValueError("it has a sparse file without a map")
    return line[:-1]
