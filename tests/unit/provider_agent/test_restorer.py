"""The form of a dump that a stranger's host wrote, before a byte of it is on this host's disk."""

import pytest

from everlease.domain.manifest import FileEntry, Manifest
from everlease.store.errors import ManifestInvalid
from provider_agent.restorer import check_shape


def manifest(*entries: FileEntry) -> Manifest:
    return Manifest(1, "0x" + "11" * 20, "0x" + "22" * 32, 1, 1, 1, "0x", "0x", "process", 1, None, 0.0, entries)


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
