from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everlease.domain.manifest import Manifest
from everlease.store.car import CarReader
from everlease.store.cid import cid_of
from everlease.store.errors import BlockCorrupt, BlockNotFound
from everlease.store.local import LocalBlockStore
from everlease.store.manifest import write_manifest
from everlease.store.pipeline import SnapshotOptions, Source, snapshot
from everlease.store.retention import CheckpointAge, RetentionPolicy, retained
from everlease.store.scrub import export_checkpoint, scrub_checkpoint, scrub_store
from everlease.store.sealing import JobKeys

HOUR = 3600.0


def ages(*hours_ago: float, now: float = 1e6 * HOUR) -> list[CheckpointAge]:
    ordered = sorted(hours_ago, reverse=True)
    return [CheckpointAge(cid_of(bytes([seq])), seq, now - ago * HOUR) for seq, ago in enumerate(ordered, 1)]


def test_the_last_ones_and_one_per_hour_and_day_stay() -> None:
    history = ages(*(number / 6 for number in range(60)))
    kept = retained(history, RetentionPolicy(keep_last=2, keep_hourly=3, keep_daily=1), 1e6 * HOUR)
    seqs = sorted(item.seq for item in history if item.manifest in kept)
    assert seqs == [53, 59, 60]


@given(st.lists(st.floats(0, 500), max_size=40), st.integers(2, 5), st.integers(0, 5), st.integers(0, 5))
def test_the_head_and_its_fallback_always_stay_and_order_does_not_matter(
    hours: list[float], last: int, hourly: int, daily: int
) -> None:
    history = ages(*hours)
    policy = RetentionPolicy(last, hourly, daily)
    kept = retained(history, policy, 1e6 * HOUR)
    assert {item.manifest for item in history[-last:]} <= kept
    assert kept == retained(history[::-1], policy, 1e6 * HOUR)
    assert len(kept) <= last + hourly + daily


def test_a_policy_without_a_fallback_is_refused() -> None:
    with pytest.raises(ValueError, match="keep_last"):
        RetentionPolicy(keep_last=1)


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
