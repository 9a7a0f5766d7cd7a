"""What is special to the local store: kills, torn tails, lost indexes, full disks, compaction, locking."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from everlease.domain.manifest import CID
from everlease.store.base import get_block, put_block
from everlease.store.cid import cid_of, parse_cid
from everlease.store.errors import BlockCorrupt, BlockNotFound, StoreFull, StoreLocked
from everlease.store.local import LocalBlockStore


def block(number: int, size: int = 700) -> tuple[CID, bytes]:
    data = number.to_bytes(4, "big") * (size // 4)
    return cid_of(data), data


def workload(root: Path, kill_at: int, acknowledged: Path) -> None:
    """Puts, deletes and compaction over several packs; kills its own process before durable step `kill_at`."""
    steps = 0

    def step(_: str) -> None:
        nonlocal steps
        steps += 1
        if steps == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    store = LocalBlockStore(root, pack_bytes=2000, on_step=step)
    with acknowledged.open("a") as log:

        def say(line: str) -> None:
            log.write(line + "\n")
            log.flush()

        for start in range(0, 8, 2):
            batch = [block(start), block(start + 1)]
            store.put_many(batch)
            for cid, _ in batch:
                say(f"put {cid}")
        gone = [block(0)[0], block(1)[0], block(2)[0]]
        for cid in gone:
            say(f"maybe {cid}")
        store.delete(gone)
        store.compact()
        store.put_many([block(9)])
        say(f"put {block(9)[0]}")
        say("end")


def run_killed(root: Path, kill_at: int, acknowledged: Path) -> bool:
    """Fork the workload; whether it was killed rather than done."""
    child = os.fork()
    if child == 0:
        try:
            workload(root, kill_at, acknowledged)
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


def test_a_kill_before_any_durable_step_loses_nothing_acknowledged(tmp_path: Path) -> None:
    kill_at = 0
    while True:
        kill_at += 1
        root, acknowledged = tmp_path / f"store{kill_at}", tmp_path / f"log{kill_at}"
        acknowledged.touch()
        killed = run_killed(root, kill_at, acknowledged)
        lines = [line.split() for line in acknowledged.read_text().splitlines()]
        maybe = {words[1] for words in lines if words[0] == "maybe"}
        promised = {parse_cid(words[1]) for words in lines if words[0] == "put" and words[1] not in maybe}
        store = LocalBlockStore(root, pack_bytes=2000)
        listed = list(store.cids())
        assert promised <= set(listed)
        assert {cid for cid, _ in store.get_many(listed)} == set(listed)
        store.put_many([block(number) for number in range(12)])
        assert len(list(store.get_many([block(number)[0] for number in range(12)]))) == 12
        store.close()
        if not killed:
            break
    assert kill_at > 25
    assert lines[-1] == ["end"]


def test_a_torn_tail_is_cut_off_and_written_over(tmp_path: Path) -> None:
    store = LocalBlockStore(tmp_path)
    first = put_block(store, b"a" * 500)
    store.close()
    pack = tmp_path / "packs" / "00000001.pack"
    whole = pack.stat().st_size
    with pack.open("ab") as file:
        file.write(b"EVB1" + os.urandom(333))
    store = LocalBlockStore(tmp_path)
    assert pack.stat().st_size == whole
    second = put_block(store, b"b" * 500)
    assert get_block(store, first) + get_block(store, second) == b"a" * 500 + b"b" * 500
    store.close()


@pytest.mark.parametrize("damage", ["removed", "garbage"])
def test_a_lost_index_is_rebuilt_from_the_packs(tmp_path: Path, damage: str) -> None:
    store = LocalBlockStore(tmp_path, pack_bytes=3000)
    cids = [put_block(store, os.urandom(900)) for _ in range(10)]
    store.close()
    index = tmp_path / "index.db"
    if damage == "removed":
        index.unlink()
    else:
        index.write_bytes(os.urandom(8192))
    store = LocalBlockStore(tmp_path, pack_bytes=3000)
    assert {cid for cid, _ in store.get_many(cids)} == set(cids)
    store.close()


def test_bytes_lost_behind_the_index_are_forgotten_not_served(tmp_path: Path) -> None:
    store = LocalBlockStore(tmp_path)
    first, second = put_block(store, b"a" * 500), put_block(store, b"b" * 500)
    store.close()
    pack = tmp_path / "packs" / "00000001.pack"
    os.truncate(pack, pack.stat().st_size - 10)
    store = LocalBlockStore(tmp_path)
    assert store.has([first, second]) == {first}
    assert put_block(store, b"b" * 500) == second
    assert get_block(store, second) == b"b" * 500
    store.close()


def test_a_flipped_byte_names_its_block(tmp_path: Path) -> None:
    store = LocalBlockStore(tmp_path)
    good, bad = put_block(store, b"a" * 500), put_block(store, b"b" * 500)
    pack = tmp_path / "packs" / "00000001.pack"
    with pack.open("r+b") as file:
        file.seek(pack.stat().st_size - 5)
        file.write(b"x")
    assert get_block(store, good) == b"a" * 500
    with pytest.raises(BlockCorrupt) as caught:
        get_block(store, bad)
    assert caught.value.cid == bad
    store.close()


def test_compaction_gives_space_back_and_keeps_what_lives(tmp_path: Path) -> None:
    store = LocalBlockStore(tmp_path, pack_bytes=10_000)
    cids = [put_block(store, os.urandom(1000)) for _ in range(60)]
    kept = cids[::5]
    before = sum(path.stat().st_size for path in (tmp_path / "packs").iterdir())
    list(store.get_many(kept))
    store.delete([cid for cid in cids if cid not in kept])
    assert store.compact() > 0
    assert sum(path.stat().st_size for path in (tmp_path / "packs").iterdir()) < before / 2
    assert {cid for cid, _ in store.get_many(kept)} == set(kept)
    store.close()
    store = LocalBlockStore(tmp_path)
    assert {cid for cid, _ in store.get_many(kept)} == set(kept)
    assert store.totals() == (len(kept), 1000 * len(kept))
    store.close()


def test_one_writer_at_a_time_but_readers_beside_it(tmp_path: Path) -> None:
    store = LocalBlockStore(tmp_path)
    cid = put_block(store, b"x")
    with pytest.raises(StoreLocked):
        LocalBlockStore(tmp_path)
    reader = LocalBlockStore(tmp_path, read_only=True)
    assert get_block(reader, cid) == b"x"
    reader.close()
    store.close()
    LocalBlockStore(tmp_path).close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MiB."""
    mount = tmp_path / "disk"
    mount.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", mount], capture_output=True, check=False)
    if made.returncode:
        pytest.skip("mounting a small file system needs root")
    yield mount
    subprocess.run(["umount", mount], check=True)


def put_until_full(store: LocalBlockStore) -> list[CID]:
    stored: list[CID] = []
    while len(stored) < 100:
        try:
            stored.append(put_block(store, os.urandom(100_000)))
        except StoreFull:
            break
    return stored


def test_a_full_disk_is_an_error_and_the_store_stays_whole(small_disk: Path) -> None:
    store = LocalBlockStore(small_disk / "store", pack_bytes=300_000)
    stored = put_until_full(store)
    assert 5 < len(stored) < 25
    assert set(store.cids()) == set(stored)
    assert len(list(store.get_many(stored))) == len(stored)
    with pytest.raises(StoreFull):
        store.put_many([(cid_of(data), data) for data in (os.urandom(100_000) for _ in range(9))])
    assert set(store.cids()) == set(stored)
    store.close()
    store = LocalBlockStore(small_disk / "store", pack_bytes=300_000)
    store.delete(stored[:9])
    store.compact()
    late = put_block(store, os.urandom(100_000))
    assert len(list(store.get_many([*stored[9:], late]))) == len(stored) - 8
    with pytest.raises(BlockNotFound):
        get_block(store, stored[0])
    store.close()
