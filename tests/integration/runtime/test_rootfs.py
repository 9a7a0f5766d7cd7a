"""A restore's files are put back below a container's overlay: unmounted meanwhile, mounted again as it was."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from provider_agent.runtime import everlease_runc, rootfs


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Path]:
    """Layers as Docker's overlay2 has them, two below one that is written, mounted by paths relative to their store."""
    root = tmp_path / "over lay"
    for name in ("l/A", "l/B", "1/diff", "1/work", "1/merged"):
        (root / name).mkdir(parents=True)
    (root / "l/A/kept").write_text("below")
    options = "lowerdir=l/A:l/B,upperdir=1/diff,workdir=1/work"
    argv = ["mount", "-t", "overlay", "-o", f"{options},nodev", "overlay", "1/merged"]
    subprocess.run(argv, check=True, cwd=root, env={**os.environ, "LIBMOUNT_FORCE_MOUNT2": "always"})
    yield root
    while subprocess.run(["umount", root / "1/merged"], check=False, capture_output=True).returncode == 0:
        continue


def archive(tmp_path: Path) -> str:
    """What a job left: a file of its own, and one of the image deleted (a whiteout)."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "new").write_text("written")
    os.mknod(source / "kept", 0o020000, 0)
    subprocess.run(["tar", "--create", "--file", tmp_path / "upper.tar", "-C", source, "."], check=True)
    return str(tmp_path / "upper.tar")


def shown(place: Path) -> list[str]:
    lines = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return [" ".join(words[5:6] + words[-3:]) for words in lines if rootfs.unescape(words[4]) == str(place)]


def test_files_are_put_back_and_the_mount_is_as_before(store: Path, tmp_path: Path) -> None:
    merged, here = store / "1/merged", Path.cwd()
    (merged / "old").write_text("of an earlier try")
    before = shown(merged)
    found = rootfs.find_overlay(str(merged))
    assert Path(found.upper) == store / "1/diff"
    rootfs.put_back(found, archive(tmp_path))
    assert shown(merged) == before
    assert sorted(os.listdir(merged)) == ["new"]
    assert (merged / "new").read_text() == "written"
    assert Path.cwd() == here


def test_what_can_not_be_put_back_is_said_and_the_mount_stays(store: Path, tmp_path: Path) -> None:
    merged = store / "1/merged"
    found = rootfs.find_overlay(str(merged))
    with pytest.raises(rootfs.Refused, match="can't be put back"):
        rootfs.put_back(found, str(tmp_path / "missing.tar"))
    assert len(shown(merged)) == 1
    with (merged / "kept").open(), pytest.raises(rootfs.Refused, match="busy"):
        rootfs.put_back(found, archive(tmp_path))
    assert (merged / "kept").read_text() == "below"


def test_a_data_folder_without_devices_restores_no_memory(tmp_path: Path) -> None:
    """The restored program's /dev/null is a node in it, which nobody could open."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "nodev,size=1m", "tmpfs", tmp_path], check=True)
    try:
        with pytest.raises(rootfs.Refused, match="mounted nodev"):
            everlease_runc.restore_options(str(tmp_path), {}, rootfs.MOUNTINFO)
        subprocess.run(["mount", "-o", "remount,dev", tmp_path], check=True)
        assert f"external mnt[/dev/null]:{tmp_path}/null\n" in everlease_runc.restore_options(
            str(tmp_path), {}, rootfs.MOUNTINFO
        )
        (tmp_path / "null").open("w").close()
    finally:
        subprocess.run(["umount", tmp_path], check=True)
