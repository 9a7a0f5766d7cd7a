"""CARv1 (https://ipld.io/specs/transport/car/carv1/) of raw blocks: how HTTP calls and exports carry many."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from everlease.domain.manifest import CID
from everlease.store.base import MAX_BLOCK_BYTES
from everlease.store.cid import BINARY_BYTES, from_binary, to_binary
from everlease.store.errors import InvalidCar, InvalidCid

MAX_ROOTS = 23
_MAX_HEADER_BYTES = 2048
_ROOTS, _VERSION = b"\xa2\x65roots", b"\x67version\x01"
# CBOR: tag 42, byte string of 37, and the identity multibase byte that DAG-CBOR puts before a CID.
_LINK = b"\xd8\x2a\x58\x25\x00"


def car_header(roots: Sequence[CID] = ()) -> bytes:
    """The header of a CAR with up to 23 roots, length prefix included."""
    if len(roots) > MAX_ROOTS:
        raise ValueError(f"a CAR has at most {MAX_ROOTS} roots here")
    body = _ROOTS + bytes([0x80 + len(roots)]) + b"".join(_LINK + to_binary(root) for root in roots) + _VERSION
    return _varint(len(body)) + body


def car_section(cid: CID, data: bytes) -> bytes:
    """One block of a CAR."""
    return _varint(BINARY_BYTES + len(data)) + to_binary(cid) + data


def write_car(blocks: Iterable[tuple[CID, bytes]], roots: Sequence[CID] = ()) -> Iterator[bytes]:
    """A whole CAR in chunks."""
    yield car_header(roots)
    for cid, data in blocks:
        yield car_section(cid, data)


class CarReader:
    """Blocks out of a CAR that arrives in chunks of any size. The blocks are not checked against their CIDs."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self.roots: tuple[CID, ...] | None = None

    def feed(self, chunk: bytes) -> Iterator[tuple[CID, bytes]]:
        """The blocks that `chunk` completes. Raises InvalidCar or InvalidCid."""
        self._buffer += chunk
        offset = 0
        while (frame := self._frame(offset)) is not None:
            start, end = frame
            if self.roots is None:
                self.roots = _read_header(bytes(self._buffer[start:end]))
            else:
                if end - start < BINARY_BYTES:
                    raise InvalidCar("a section is shorter than a CID")
                cid = from_binary(bytes(self._buffer[start : start + BINARY_BYTES]))
                yield cid, bytes(memoryview(self._buffer)[start + BINARY_BYTES : end])
            offset = end
        del self._buffer[:offset]

    def finish(self) -> None:
        """Raise InvalidCar if the stream ended within a section or before its header."""
        if self._buffer or self.roots is None:
            raise InvalidCar("the CAR is cut short")

    def _frame(self, offset: int) -> tuple[int, int] | None:
        """(start, end) of the next frame's content, None if it is not all there yet."""
        limit = _MAX_HEADER_BYTES if self.roots is None else MAX_BLOCK_BYTES + BINARY_BYTES
        size = shift = 0
        while True:
            if offset >= len(self._buffer):
                return None
            byte = self._buffer[offset]
            offset += 1
            size |= (byte & 0x7F) << shift
            shift += 7
            if size > limit or shift > 63:
                raise InvalidCar(f"a section of {size} bytes is above the limit")
            if byte < 0x80:
                break
        return (offset, offset + size) if offset + size <= len(self._buffer) else None


def _read_header(body: bytes) -> tuple[CID, ...]:
    start = len(_ROOTS) + 1
    count = body[len(_ROOTS)] - 0x80 if len(body) > len(_ROOTS) else -1
    size = len(_LINK) + BINARY_BYTES
    if not 0 <= count <= MAX_ROOTS:
        raise InvalidCar("the header is not that of a CARv1")
    links = [body[start + number * size : start + (number + 1) * size] for number in range(count)]
    try:
        roots = tuple(from_binary(link[len(_LINK) :]) for link in links)
    except InvalidCid as error:
        raise InvalidCar("a root is not a CID of a raw sha2-256 block") from error
    if car_header(roots) != _varint(len(body)) + body:
        raise InvalidCar("the header is not that of a CARv1")
    return roots


def _varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
