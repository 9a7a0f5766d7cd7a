from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from everlease.domain.manifest import Manifest
from everlease.store.car import CarReader
from everlease.store.errors import BlockCorrupt, BlockNotFound
from everlease.store.local import LocalBlockStore
from everlease.store.manifest import write_manifest
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
