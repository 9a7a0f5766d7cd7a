from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from everlease.domain.manifest import CID, Manifest
from everlease.store.car import CarReader
from everlease.store.cid import cid_of
from everlease.store.errors import BlockCorrupt, BlockNotFound
from everlease.store.local import LocalBlockStore
from everlease.store.manifest import write_manifest
from everlease.store.memory import MemoryBlockStore
from everlease.store.pipeline import SnapshotOptions, Source, snapshot
from everlease.store.scrub import export_checkpoint, scrub_checkpoint, scrub_store
from everlease.store.sealing import JobKeys


def test_scrub_names_damaged_and_absent_blocks_and_export_holds_all(
    tmp_path: Path, keys: JobKeys, node_key: bytes, make_manifest: Callable[..., Manifest]
) -> None:
    store = LocalBlockStore(tmp_path / "store")
    options = SnapshotOptions(block_bytes=4096)
    entries = snapshot([Source("f", os.urandom(40_000))], store, keys, options=options).entries
    head = write_manifest(store, make_manifest(entries), keys, node_key)
    report = scrub_checkpoint(store, head, keys)
    assert report.ok
    assert report.good == 10
    target = tmp_path / "out.car"
    assert export_checkpoint(store, head, keys, target) == target.stat().st_size
    reader = CarReader()
    exported = dict(reader.feed(target.read_bytes()))
    reader.finish()
    assert reader.roots == (head,)
    assert set(exported) == {head, *make_manifest(entries).cids()}

    absent, damaged = entries[0].blocks[0].cid, entries[0].blocks[1].cid
    assert absent is not None
    assert damaged is not None
    store.delete([absent])
    data = next(iter(store.get_many([damaged])))[1]
    pack = tmp_path / "store/packs/00000001.pack"
    content = pack.read_bytes()
    pack.write_bytes(content.replace(data, data[:-1] + bytes([data[-1] ^ 1])))
    report = scrub_checkpoint(store, head, keys)
    assert (report.corrupt, report.missing, report.good) == ((damaged,), (absent,), 8)
    assert scrub_store(store).corrupt == (damaged,)
    assert store.has([damaged]) == {damaged}
    assert scrub_store(store, drop_corrupt=True).corrupt == (damaged,)
    assert store.has([damaged]) == set()
    assert scrub_store(store).ok
    with pytest.raises((BlockNotFound, BlockCorrupt)):
        export_checkpoint(store, head, keys, tmp_path / "other.car")
    assert not list(tmp_path.glob("other*"))
    store.close()


class Healing(MemoryBlockStore):
    """A block is damaged when it is first read, and stored anew before it is read again."""

    def __init__(self, rotten: CID) -> None:
        super().__init__()
        self._rotten = {rotten}

    def get_many(self, cids: Iterable[CID]) -> Iterator[tuple[CID, bytes]]:
        for cid in cids:
            if cid in self._rotten:
                self._rotten.remove(cid)
                raise BlockCorrupt(cid, "its bytes do not hash to its name")
            yield from super().get_many([cid])


def test_a_block_that_was_stored_anew_since_it_was_read_stays() -> None:
    store = Healing(cid_of(b"a"))
    store.put_many([(cid_of(data), data) for data in (b"a", b"b")])
    assert scrub_store(store, drop_corrupt=True).corrupt == ()
    assert store.has([cid_of(b"a"), cid_of(b"b")]) == {cid_of(b"a"), cid_of(b"b")}
