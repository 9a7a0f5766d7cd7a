"""The form of a dump that a stranger's host wrote, before a byte of it is on this host's disk; a disk that is full."""

import os
from pathlib import Path
from threading import Event
from types import SimpleNamespace
from typing import cast

import pytest
from eth_account import Account

from everlease.domain.manifest import FileEntry, Manifest
from everlease.store.errors import ManifestInvalid
from everlease.store.manifest import write_manifest
from everlease.store.memory import MemoryBlockStore
from everlease.store.pipeline import Source, snapshot
from everlease.store.sealing import JobKeys
from everlease.store.wrappers import CachingStore
from everlease.wire.commands import Start
from provider_agent.errors import StepFailed
from provider_agent.host import Folders, Host
from provider_agent.restorer import check_shape, fetch_checkpoint
from tests.support.model import spec
from tests.support.small_disk import small_disk

KEY = b"\x07" * 32
NODE = Account.from_key(KEY).address


def manifest(*entries: FileEntry, node: str = "0x") -> Manifest:
    lease = "0x" + "33" * 32
    return Manifest(1, "0x" + "11" * 20, "0x" + "22" * 32, 1, 1, 1, lease, node, "process", 1, None, 0.0, entries)


def test_a_dump_has_images_archives_and_a_record() -> None:
    check_shape(
        manifest(
            FileEntry("criu", "directory"),
            FileEntry("criu/pages-1.img", "file"),
            FileEntry("files", "directory"),
            FileEntry("files/upper.tar", "file"),
            FileEntry("files/volume-0.tar", "file"),
            FileEntry("dump.json", "file", size=200),
        )
    )


@pytest.mark.parametrize(
    "entry",
    [
        FileEntry("files/upper.tar", "symlink", target="../../other-job/restore-2/files/upper.tar"),
        FileEntry("criu", "symlink", target="../../other-job/restore-2/criu"),
        FileEntry("dump.json", "symlink", target="/etc/shadow"),
        FileEntry("criu/core-1.img", "symlink", target="/etc/shadow"),
        FileEntry("criu", "file"),
        FileEntry("criu/deep/core-1.img", "file"),
        FileEntry("work", "directory"),
        FileEntry("dump.json.part", "file"),
        FileEntry("dump.json", "file", size=1 << 30),
    ],
)
def test_anything_else_is_refused(entry: FileEntry) -> None:
    with pytest.raises(ManifestInvalid):
        check_shape(manifest(entry))


def test_a_full_disk_makes_a_restore_worth_another_try_and_says_nothing_about_the_checkpoint(tmp_path: Path) -> None:
    empty = manifest()
    keys = JobKeys(1, empty.contract, empty.job_id, 1, {1: os.urandom(32)}, os.urandom(32))
    inner = MemoryBlockStore()
    taken = snapshot([Source("dump.json", b"{}"), Source("files/upper.tar", os.urandom(200_000))], inner, keys)
    head = write_manifest(inner, manifest(*taken.entries, node=NODE), keys, KEY)
    told = {"job_id": empty.job_id, "fence": 2, "checkpoint_node": NODE.lower(), "checkpoint_seq": 1, "mode": "process"}
    start = Start.model_construct(**told)
    store = CachingStore(inner, tmp_path / "cache")
    with small_disk(tmp_path / "disk") as disk:
        host = cast(Host, SimpleNamespace(folders=Folders(disk.root)))
        host.folders.job(empty.job_id).mkdir(parents=True)
        disk.fill()
        with pytest.raises(StepFailed, match="disk is full") as refused:
            fetch_checkpoint(host, start, head, spec(), keys, store, Event())
        assert (refused.value.retryable, refused.value.data) == (True, {})
        disk.free()
        fetched = fetch_checkpoint(host, start, head, spec(), keys, store, Event())
        assert (fetched.dump / "files" / "upper.tar").stat().st_size == 200_000
