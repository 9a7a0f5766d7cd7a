"""The interface of every block store, wrapper and client."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

from everlease.domain.manifest import CID
from everlease.store import cid as cids
from everlease.store.errors import BlockCorrupt, BlockTooLarge

MAX_BLOCK_BYTES = 16 << 20
"""The largest stored block of any backend, in bytes."""


class BlockStore(Protocol):
    """Stored blocks by CID. All calls may come from several threads at once.

    A put is durable and visible when the call returns; a get returns bytes that match the CID or raises BlockCorrupt.
    """

    def put_many(self, blocks: Iterable[tuple[CID, bytes]]) -> None:
        """Store blocks; those already there are left alone.

        Raises BlockCorrupt (bytes and CID differ), BlockTooLarge, StoreFull; blocks before the failing one may stay.
        """
        ...

    def get_many(self, cids: Iterable[CID]) -> Iterator[tuple[CID, bytes]]:
        """The blocks, in the order asked. Raises BlockNotFound or BlockCorrupt at the first that can't be given."""
        ...

    def has(self, cids: Iterable[CID]) -> set[CID]:
        """Which of these blocks are here."""
        ...

    def delete(self, cids: Iterable[CID]) -> None:
        """Remove blocks; absent ones are no error."""
        ...

    def cids(self) -> Iterator[CID]:
        """Every block's CID, ascending by digest; blocks put meanwhile may be missing."""
        ...

    def size(self, cid: CID) -> int:
        """Stored bytes of a block. Raises BlockNotFound."""
        ...

    def close(self) -> None:
        """Release files and connections."""
        ...


def get_block(store: BlockStore, cid: CID) -> bytes:
    """One block, checked here whatever the store checks. Raises BlockNotFound or BlockCorrupt."""
    data = next(iter(store.get_many([cid])))[1]
    check_block(cid, data)
    return data


def put_block(store: BlockStore, data: bytes) -> CID:
    """Store one block under its CID and return it."""
    cid = cids.cid_of(data)
    store.put_many([(cid, data)])
    return cid


def check_block(cid: CID, data: bytes) -> None:
    """Raise BlockCorrupt or BlockTooLarge unless `data` may be stored as `cid`."""
    if len(data) > MAX_BLOCK_BYTES:
        raise BlockTooLarge(cid, len(data), MAX_BLOCK_BYTES)
    if not cids.matches(cid, data):
        raise BlockCorrupt(cid, "its bytes do not hash to its name")
