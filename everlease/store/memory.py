"""A block store in memory, for tests and single-process demos."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from threading import Lock

from everlease.domain.manifest import CID
from everlease.store.base import check_block
from everlease.store.cid import digest_of
from everlease.store.errors import BlockNotFound


class MemoryBlockStore:
    """BlockStore in a dict; gone with the process."""

    def __init__(self) -> None:
        self._blocks: dict[CID, bytes] = {}
        self._lock = Lock()

    def put_many(self, blocks: Iterable[tuple[CID, bytes]]) -> None:
        for cid, data in blocks:
            check_block(cid, data)
            with self._lock:
                self._blocks.setdefault(cid, bytes(data))

    def get_many(self, cids: Iterable[CID]) -> Iterator[tuple[CID, bytes]]:
        for cid in cids:
            data = self._blocks.get(cid)
            if data is None:
                raise BlockNotFound(cid)
            yield cid, data

    def has(self, cids: Iterable[CID]) -> set[CID]:
        return {cid for cid in cids if cid in self._blocks}

    def delete(self, cids: Iterable[CID]) -> None:
        with self._lock:
            for cid in cids:
                self._blocks.pop(cid, None)

    def cids(self) -> Iterator[CID]:
        with self._lock:
            present = list(self._blocks)
        return iter(sorted(present, key=digest_of))

    def size(self, cid: CID) -> int:
        data = self._blocks.get(cid)
        if data is None:
            raise BlockNotFound(cid)
        return len(data)

    def close(self) -> None:
        self._blocks.clear()
