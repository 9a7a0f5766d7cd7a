from __future__ import annotations

import os
import struct
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from everlease.domain.manifest import CID, BlockRef, FileEntry, Manifest
from everlease.store.cid import cid_of
from everlease.store.errors import (
    BlockCorrupt,
    BlockNotFound,
    Cancelled,
    KeyMissing,
    ManifestInvalid,
    SourceChanged,
    StoreFull,
    TargetExists,
    UnsupportedSource,
)
from everlease.store.memory import MemoryBlockStore
from everlease.store.pipeline import SnapshotOptions, Source, load_known, restore, save_known, scan, snapshot
from everlease.store.sealing import JobKeys
from everlease.store.wrappers import LimitedStore

Make = Callable[..., Manifest]
SMALL = SnapshotOptions(block_bytes=16 << 10)
LIMIT = 1 << 30
PAGE = 4096


class LyingStore(MemoryBlockStore):
    """A store that answers with other bytes than it was given."""

    def __init__(self, lie: Callable[[CID, bytes], bytes]) -> None:
        super().__init__()
        self.lie = lie

    def get_many(self, cids: Iterable[CID]) -> Iterator[tuple[CID, bytes]]:
        for cid, data in super().get_many(cids):
            yield cid, self.lie(cid, data)


def tree(root: Path) -> Path:
    root.mkdir()
    (root / "deep" / "er").mkdir(parents=True)
    (root / "noise").write_bytes(os.urandom(100_001))
    (root / "text").write_bytes(b"abc" * 30_000)
    (root / "zeros").write_bytes(bytes(50_000))
    (root / "empty").write_bytes(b"")
    (root / "deep" / "er" / "same").write_bytes((root / "noise").read_bytes())
    (root / "link").symlink_to("deep/er/same")
    (root / "outside").symlink_to("/etc/passwd")
    (root / "deep" / "script").write_bytes(b"#!")
    (root / "deep" / "script").chmod(0o4755)
    os.utime(root / "text", ns=(10**18, 10**18))
    return root


def assert_same(left: Path, right: Path) -> None:
    names = sorted(str(path.relative_to(left)) for path in left.rglob("*"))
    assert names == sorted(str(path.relative_to(right)) for path in right.rglob("*"))
    for name in names:
        a, b = left / name, right / name
        if a.is_symlink():
            assert a.readlink() == b.readlink()
        elif a.is_file():
            assert a.read_bytes() == b.read_bytes()
            assert a.stat().st_mtime_ns == b.stat().st_mtime_ns
            assert a.stat().st_mode & 0o777 == b.stat().st_mode & 0o7777


def test_a_tree_comes_back(tmp_path: Path, keys: JobKeys, make_manifest: Make) -> None:
    source = tree(tmp_path / "source")
    os.mkfifo(source / "fifo")
    sources, skipped = scan(source)
    assert skipped == ["fifo"]
    (source / "fifo").unlink()
    os.utime(source, ns=(1, 1))
    store = MemoryBlockStore()
    taken = snapshot(sources, store, keys, options=SMALL)
    assert taken.stats.zero_bytes == 50_000
    assert taken.stats.new_bytes < 120_000
    assert taken.stats.logical_bytes == taken.stats.zero_bytes + taken.stats.known_bytes + 200_002 + 90_000 + 2
    manifest = make_manifest(taken.entries)
    restored = restore(manifest, store, keys, tmp_path / "target", max_bytes=LIMIT)
    assert_same(source, tmp_path / "target")
    assert set(restored.known) == set(taken.known)
    assert (tmp_path / "target" / "zeros").stat().st_blocks == 0
    assert [path.name for path in tmp_path.iterdir()].count("target") == 1
    assert not list(tmp_path.glob(".restore-*"))


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9000)), max_size=8), st.sampled_from([4096, 8192]), st.data()
)
def test_any_content_comes_back(
    tmp_path: Path, keys: JobKeys, make_manifest: Make, parts: list[tuple[int, int]], block: int, data: st.DataObject
) -> None:
    content = b"".join(bytes([kind]) * size for kind, size in parts)
    store = MemoryBlockStore()
    taken = snapshot([Source("f", content)], store, keys, options=SnapshotOptions(block_bytes=block, workers=1))
    target = tmp_path / os.urandom(8).hex()
    restore(make_manifest(taken.entries), store, keys, target, max_bytes=LIMIT)
    assert (target / "f").read_bytes() == content


def test_the_second_snapshot_stores_only_what_changed(tmp_path: Path, keys: JobKeys, make_manifest: Make) -> None:
    path = tmp_path / "f"
    path.write_bytes(os.urandom(64 * (16 << 10)))
    store = MemoryBlockStore()
    first = snapshot([Source("f", path)], store, keys, options=SMALL)
    with path.open("r+b") as file:
        file.seek(5 * (16 << 10) + 7)
        file.write(b"changed")
    second = snapshot([Source("f", path)], store, keys, known=first.known, options=SMALL)
    assert second.stats.new_blocks == 1
    assert second.stats.known_bytes == 63 * (16 << 10)
    restore(make_manifest(second.entries), store, keys, tmp_path / "t", max_bytes=LIMIT)
    assert (tmp_path / "t" / "f").read_bytes() == path.read_bytes()


def test_a_host_that_restored_goes_on_incrementally_under_a_new_key(
    tmp_path: Path, keys: JobKeys, make_manifest: Make
) -> None:
    store = MemoryBlockStore()
    content = os.urandom(300_000)
    first = snapshot([Source("f", content)], store, keys, options=SMALL)
    restored = restore(make_manifest(first.entries), store, keys, tmp_path / "t", max_bytes=LIMIT)
    newer = replace(keys, generation=2, keys={1: keys.keys[1], 2: os.urandom(32)})
    second = snapshot([Source("f", content + b"more")], store, newer, known=restored.known, options=SMALL)
    assert second.stats.new_blocks == 1
    manifest = make_manifest(second.entries, generation=2)
    assert manifest.generations() == {1, 2}
    restore(manifest, store, newer, tmp_path / "u", max_bytes=LIMIT)
    assert (tmp_path / "u" / "f").read_bytes() == content + b"more"
    only_new = replace(newer, keys={2: newer.keys[2]})
    with pytest.raises(KeyMissing):
        restore(manifest, store, only_new, tmp_path / "v", max_bytes=LIMIT)
    resealed = snapshot([Source("f", content)], store, only_new, known=restored.known, options=SMALL)
    assert resealed.stats.known_bytes == 0


def test_known_blocks_that_the_store_lost_are_stored_again(tmp_path: Path, keys: JobKeys, make_manifest: Make) -> None:
    store = MemoryBlockStore()
    sources = [Source("f", os.urandom(300_000)), Source("g", b"x" * 100_000)]
    first = snapshot(sources, store, keys, options=SMALL)
    store.delete(list(store.cids())[::2])
    second = snapshot(sources, store, keys, known=first.known, options=SMALL)
    assert 0 < second.stats.new_blocks < first.stats.new_blocks
    restore(make_manifest(second.entries), store, keys, tmp_path / "t", max_bytes=LIMIT)
    assert (tmp_path / "t" / "f").read_bytes() == sources[0].origin


def test_the_known_map_survives_a_restart_and_damage(tmp_path: Path, keys: JobKeys) -> None:
    taken = snapshot([Source("f", os.urandom(100_000))], MemoryBlockStore(), keys, options=SMALL)
    path = tmp_path / "known"
    assert load_known(path) == {}
    save_known(path, taken.known)
    assert load_known(path) == taken.known
    path.write_bytes(path.read_bytes()[:-3])
    assert load_known(path) == {}


def pagemap(runs: list[tuple[int, int]], pages_id: int) -> bytes:
    def varint(value: int) -> bytes:
        out = bytearray()
        while value >= 0x80:
            out.append(value & 0x7F | 0x80)
            value >>= 7
        return bytes([*out, value])

    def frame(message: bytes) -> bytes:
        return struct.pack("<I", len(message)) + message

    entries = [b"\x08" + varint(start) + b"\x10\x00\x20\x04\x28" + varint(length // PAGE) for start, length in runs]
    return bytes.fromhex("1943565425400856") + frame(b"\x08" + varint(pages_id)) + b"".join(map(frame, entries))


def criu_images(runs: list[tuple[int, bytes]]) -> list[Source]:
    table = [(start, len(data)) for start, data in runs]
    return [
        Source("criu/pagemap-1.img", pagemap(table, 3)),
        Source("criu/pages-3.img", b"".join(data for _, data in runs)),
    ]


def test_memory_that_moved_in_the_file_is_still_known(tmp_path: Path, keys: JobKeys, make_manifest: Make) -> None:
    heap, stack = os.urandom(60 * PAGE), os.urandom(9 * PAGE)
    store = MemoryBlockStore()
    first = snapshot(criu_images([(0x10000, heap), (0x7F000000, stack)]), store, keys, options=SMALL)
    grown = criu_images([(0x8000, os.urandom(3 * PAGE)), (0x10000, heap), (0x7F000000, stack)])
    second = snapshot(grown, store, keys, known=first.known, options=SMALL)
    pages = next(entry for entry in second.entries if entry.path.endswith("pages-3.img"))
    assert (pages.layout, pages.space) == ("aligned", "pid:1")
    assert [ref.position for ref in pages.blocks][:3] == [0x8000, 0x10000, 0x14000]
    assert second.stats.known_bytes == len(heap) + len(stack)
    restore(make_manifest(second.entries), store, keys, tmp_path / "t", max_bytes=LIMIT)
    assert (tmp_path / "t/criu/pages-3.img").read_bytes() == grown[1].origin


@pytest.mark.parametrize("damage", ["short pages", "two pagemaps", "garbage", "cut"])
def test_images_that_disagree_are_cut_by_offset_and_come_back(
    tmp_path: Path, keys: JobKeys, make_manifest: Make, damage: str
) -> None:
    sources = criu_images([(0x10000, os.urandom(20 * PAGE))])
    table, pages = sources
    assert isinstance(table.origin, bytes)
    assert isinstance(pages.origin, bytes)
    if damage == "short pages":
        sources = [table, replace(pages, origin=pages.origin[:-PAGE])]
    elif damage == "two pagemaps":
        sources = [table, replace(table, path="criu/pagemap-2.img"), pages]
    else:
        sources = [replace(table, origin=b"x" if damage == "garbage" else table.origin[:-1]), pages]
    store = MemoryBlockStore()
    taken = snapshot(sources, store, keys, options=SMALL)
    assert {entry.layout for entry in taken.entries} == {"offset"}
    restore(make_manifest(taken.entries), store, keys, tmp_path / "t", max_bytes=LIMIT)
    assert (tmp_path / "t/criu/pages-3.img").read_bytes() == sources[-1].origin


def test_flipped_truncated_swapped_and_absent_blocks_are_named_and_nothing_appears(
    tmp_path: Path, keys: JobKeys, make_manifest: Make
) -> None:
    store = LyingStore(lambda _, data: data)
    taken = snapshot([Source("f", os.urandom(200_000))], store, keys, options=SMALL)
    manifest = make_manifest(taken.entries)
    victim, other = sorted(manifest.cids())[:2]
    other_bytes = next(iter(store.get_many([other])))[1]
    lies: list[Callable[[bytes], bytes]] = [
        lambda data: data[:-1] + bytes([data[-1] ^ 1]),
        lambda data: data[: len(data) // 2],
        lambda data: b"",
        lambda data: other_bytes,
    ]
    for lie in lies:
        store.lie = lambda cid, data, lie=lie: lie(data) if cid == victim else data  # type: ignore[misc]
        with pytest.raises(BlockCorrupt) as caught:
            restore(manifest, store, keys, tmp_path / "t", max_bytes=LIMIT)
        assert caught.value.cid == victim
    store.lie = lambda _, data: data
    store.delete([victim])
    with pytest.raises(BlockNotFound):
        restore(manifest, store, keys, tmp_path / "t", max_bytes=LIMIT)
    assert list(tmp_path.iterdir()) == []


def test_a_manifest_whose_length_is_not_the_blocks_is_refused(
    tmp_path: Path, keys: JobKeys, make_manifest: Make
) -> None:
    store = MemoryBlockStore()
    taken = snapshot([Source("f", os.urandom(1000))], store, keys)
    ref = taken.entries[0].blocks[0]
    for length in (999, 1001):
        entry = FileEntry("f", "file", length, blocks=(replace(ref, length=length),))
        with pytest.raises(BlockCorrupt):
            restore(make_manifest((entry,)), store, keys, tmp_path / "t", max_bytes=LIMIT)


@pytest.mark.parametrize(
    "entries",
    [
        (FileEntry("../x", "file"),),
        (FileEntry("/x", "file"),),
        (FileEntry("d", "symlink", target="/tmp"), FileEntry("d/x", "file")),
    ],
)
def test_nothing_is_written_outside_the_target(
    tmp_path: Path, keys: JobKeys, make_manifest: Make, entries: tuple[FileEntry, ...]
) -> None:
    with pytest.raises(ManifestInvalid):
        restore(make_manifest(entries), MemoryBlockStore(), keys, tmp_path / "a" / "t", max_bytes=LIMIT)
    assert list(tmp_path.iterdir()) == []


def test_a_manifest_above_the_hosts_limit_is_refused(tmp_path: Path, keys: JobKeys, make_manifest: Make) -> None:
    refs = tuple(BlockRef(None, number << 20, 0, 1 << 20) for number in range(64))
    entry = FileEntry("huge", "file", 64 << 20, blocks=refs)
    with pytest.raises(ManifestInvalid):
        restore(make_manifest((entry,)), MemoryBlockStore(), keys, tmp_path / "t", max_bytes=63 << 20)


def test_a_target_in_use_is_left_alone_and_stale_work_is_swept(
    tmp_path: Path, keys: JobKeys, make_manifest: Make
) -> None:
    target = tmp_path / "t"
    target.mkdir()
    (tmp_path / ".restore-t-dead").mkdir()
    store = MemoryBlockStore()
    manifest = make_manifest(snapshot([Source("f", b"new")], store, keys).entries)
    restore(manifest, store, keys, target, max_bytes=LIMIT)
    with pytest.raises(TargetExists):
        restore(manifest, store, keys, target, max_bytes=LIMIT)
    (tmp_path / "dangling").symlink_to("nowhere")
    with pytest.raises(TargetExists):
        restore(manifest, store, keys, tmp_path / "dangling", max_bytes=LIMIT)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dangling", "t"]


def test_a_symlink_put_in_the_way_while_the_agent_reads_is_not_followed(tmp_path: Path, keys: JobKeys) -> None:
    source = tmp_path / "job"
    (source / "d").mkdir(parents=True)
    (source / "d" / "passwd").write_bytes(b"mine")
    sources, _ = scan(source)
    (source / "d").rename(source / "e")
    (source / "d").symlink_to("/etc")
    with pytest.raises(SourceChanged):
        snapshot(sources, MemoryBlockStore(), keys)


def test_a_source_that_shrinks_is_an_error_worth_retrying(tmp_path: Path, keys: JobKeys) -> None:
    path = tmp_path / "f"
    path.write_bytes(os.urandom(100_000))

    class Shrinking(MemoryBlockStore):
        def put_many(self, blocks: Iterable[tuple[CID, bytes]]) -> None:
            os.truncate(path, 10)
            super().put_many(blocks)

    options = SnapshotOptions(block_bytes=4096, workers=1, batch_bytes=1)
    path.write_bytes(os.urandom(32 << 20))
    with pytest.raises(SourceChanged) as caught:
        snapshot([Source("f", path)], Shrinking(), keys, options=options)
    assert caught.value.retryable


def test_two_sources_of_one_name_are_refused(keys: JobKeys) -> None:
    with pytest.raises(UnsupportedSource):
        snapshot([Source("f", b"a"), Source("f", b"b")], MemoryBlockStore(), keys)


def test_both_ways_can_be_cancelled_and_report_progress(tmp_path: Path, keys: JobKeys, make_manifest: Make) -> None:
    cancel = threading.Event()
    store = MemoryBlockStore()
    content = os.urandom(40 << 20)
    seen: list[int] = []

    def stop(done: int) -> None:
        seen.append(done)
        cancel.set()

    with pytest.raises(Cancelled):
        snapshot([Source("f", content)], store, keys, cancel=cancel, progress=stop)
    assert 0 < seen[0] < len(content)
    done: list[int] = []
    taken = snapshot([Source("f", content)], store, keys, progress=done.append)
    assert done[-1] == len(content)
    with pytest.raises(Cancelled):
        restore(make_manifest(taken.entries), store, keys, tmp_path / "t", max_bytes=LIMIT, cancel=cancel)
    assert not (tmp_path / "t").exists()


def test_a_full_store_stops_the_snapshot(keys: JobKeys) -> None:
    with pytest.raises(StoreFull):
        snapshot([Source("f", os.urandom(20 << 20))], LimitedStore(MemoryBlockStore(), 1 << 20), keys)


def test_memory_in_flight_is_bounded(keys: JobKeys) -> None:
    total = 192 << 20
    waiting = threading.Semaphore(0)
    read: list[int] = []

    class Slow(MemoryBlockStore):
        def put_many(self, blocks: Iterable[tuple[CID, bytes]]) -> None:
            waiting.acquire()

    def release(done: int) -> None:
        read.append(done)

    content = os.urandom(1 << 20) * (total >> 20)
    unique = b"".join(number.to_bytes(4, "big") + content[4 : 1 << 20] for number in range(total >> 20))
    thread = threading.Thread(
        target=lambda: snapshot([Source("f", unique)], Slow(), keys, options=SnapshotOptions(1 << 20), progress=release)
    )
    thread.start()
    thread.join(1.5)
    assert max(read, default=0) <= 48 << 20
    for _ in range(100):
        waiting.release()
    thread.join()
    assert read[-1] == total


@pytest.mark.parametrize("bad", [{"block_bytes": 5000}, {"block_bytes": 2 << 20}, {"workers": 0}])
def test_options_that_make_no_sense_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="block_bytes"):
        SnapshotOptions(**bad)


def test_blocks_are_named_by_their_ciphertext(keys: JobKeys) -> None:
    store = MemoryBlockStore()
    taken = snapshot([Source("f", b"plain text")], store, keys)
    cid = taken.entries[0].blocks[0].cid
    assert cid is not None
    stored = next(iter(store.get_many([cid])))[1]
    assert cid_of(stored) == cid
    assert b"plain" not in stored
