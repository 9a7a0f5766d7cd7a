"""Pack files: append-only records of blocks (docs/checkpoint-format.md, "Local store")."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Iterator
from pathlib import Path

from everlease.domain.manifest import CID
from everlease.durable import fsync_directory
from everlease.store.base import MAX_BLOCK_BYTES
from everlease.store.cid import BINARY_BYTES, from_binary, matches, to_binary
from everlease.store.errors import InvalidCid, StoreFull

RECORD_MAGIC = b"EVB1"
_HEADER = struct.Struct(f">4sI{BINARY_BYTES}s")
HEADER_BYTES = _HEADER.size
FULL_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def pack_path(root: Path, number: int) -> Path:
    """The file of pack `number`."""
    return root / f"{number:08d}.pack"


def pack_numbers(root: Path) -> list[int]:
    """Numbers of the packs in a directory, ascending."""
    return sorted(int(path.stem) for path in root.glob("*.pack") if path.stem.isdigit())


class PackWriter:
    """Appends records to one pack. Not thread-safe; its owner holds a lock."""

    def __init__(self, root: Path, number: int, end: int) -> None:
        self.number = number
        path = pack_path(root, number)
        fresh = not path.exists()
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        # Bytes behind the last indexed record are a torn or abandoned write.
        os.ftruncate(self._descriptor, end)
        self.end = end
        if fresh:
            fsync_directory(root)

    def append(self, cid: CID, data: bytes) -> int:
        """Write one record and return the offset of its data. Raises StoreFull and leaves the pack as it was."""
        start = self.end
        record = memoryview(_HEADER.pack(RECORD_MAGIC, len(data), to_binary(cid)) + data)
        try:
            written = 0
            while written < len(record):
                written += os.pwrite(self._descriptor, record[written:], start + written)
        except OSError as error:
            self.rewind(start)
            raise _full(error) from error
        self.end = start + len(record)
        return start + HEADER_BYTES

    def sync(self) -> None:
        """Make all records durable. Raises StoreFull where the file system finds out only now."""
        try:
            os.fdatasync(self._descriptor)
        except OSError as error:
            raise _full(error) from error

    def rewind(self, end: int) -> None:
        """Drop everything from `end` on."""
        os.ftruncate(self._descriptor, end)
        self.end = end

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)


def scan_pack(path: Path) -> Iterator[tuple[CID, int, int]]:
    """(CID, data offset, length) of every whole record whose bytes match its CID; stops at the first torn one."""
    with path.open("rb") as file:
        offset = 0
        while len(header := file.read(HEADER_BYTES)) == HEADER_BYTES:
            magic, length, binary = _HEADER.unpack(header)
            if magic != RECORD_MAGIC or length > MAX_BLOCK_BYTES:
                return
            data = file.read(length)
            if len(data) != length:
                return
            try:
                cid = from_binary(binary)
            except InvalidCid:
                return
            if matches(cid, data):
                yield cid, offset + HEADER_BYTES, length
            offset += HEADER_BYTES + length


def _full(error: OSError) -> OSError | StoreFull:
    if error.errno in FULL_ERRNOS:
        return StoreFull(f"the store's disk is full: {os.strerror(error.errno)}")
    return error
