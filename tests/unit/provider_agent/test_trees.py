"""What a job may do to the folders that the agent measures and deletes as root."""

import os
import tarfile
from pathlib import Path

import pytest

from provider_agent.runtime.archives import check
from provider_agent.runtime.commands import remove_tree, tree_bytes
from provider_agent.runtime.errors import CheckpointRefused


def nest(folder: Path, depth: int) -> None:
    """Folders in folders, deeper than any path may be long and Python may recurse."""
    folder.mkdir()
    here = os.open(folder, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("d", dir_fd=here)
        deeper = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = deeper
    handle = os.open("file", os.O_WRONLY | os.O_CREAT, dir_fd=here)
    os.write(handle, b"x" * (1 << 20))
    os.close(handle)
    os.close(here)


def test_a_tree_of_any_depth_is_measured_and_deleted(tmp_path: Path) -> None:
    nest(tmp_path / "job", 5000)
    assert tree_bytes([tmp_path / "job", tmp_path / "gone"]) >= 1 << 20
    remove_tree(tmp_path / "job")
    assert not (tmp_path / "job").exists()
    remove_tree(tmp_path / "job")


def test_links_are_neither_followed_nor_their_targets_deleted(tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious/file").write_bytes(b"x" * (1 << 20))
    (tmp_path / "job").mkdir()
    (tmp_path / "job/link").symlink_to(tmp_path / "precious")
    assert tree_bytes([tmp_path / "job"]) < 1 << 20
    remove_tree(tmp_path / "job")
    assert (tmp_path / "precious/file").exists()


def link(name: str, kind: bytes, target: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.mark.parametrize(
    "members",
    [
        [link("a", tarfile.SYMTYPE, "/etc"), tarfile.TarInfo("a/passwd")],
        [link("a", tarfile.SYMTYPE, "/etc"), link("b", tarfile.LNKTYPE, "a"), tarfile.TarInfo("b/passwd")],
        [tarfile.TarInfo("../escape")],
        [tarfile.TarInfo("/etc/passwd")],
        [link("a", tarfile.LNKTYPE, "../../etc/shadow")],
        [link("sda", tarfile.BLKTYPE, "")],
    ],
)
def test_an_archive_that_reaches_out_is_refused(tmp_path: Path, members: list[tarfile.TarInfo]) -> None:
    with tarfile.open(tmp_path / "upper.tar", "w") as archive:
        for member in members:
            archive.addfile(member)
    with pytest.raises(CheckpointRefused):
        check(tmp_path / "upper.tar")
