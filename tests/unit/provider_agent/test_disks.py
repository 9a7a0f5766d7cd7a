"""The disk that counts is the fullest of those that a job fills."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from provider_agent import disks
from tests.support.small_disk import small_disk


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """Docker's root on a disk of its own, of 1 MiB."""
    with small_disk(tmp_path / "docker") as disk:
        yield disk.root


def test_dockers_own_disk_limits_what_is_free(tmp_path: Path, small: Path) -> None:
    info = {"DockerRootDir": str(small), "Driver": "overlay2"}
    folders = disks.of_jobs(tmp_path, info, containerd=tmp_path)
    assert folders == (tmp_path, small)
    assert disks.free(folders) <= 1 << 20 < disks.free((tmp_path,))
    assert disks.apart(folders) == [tmp_path, small]


def test_layers_of_containerds_store_are_on_containerds_disk(tmp_path: Path, small: Path) -> None:
    docker = tmp_path / "root"
    docker.mkdir()
    info = {"DockerRootDir": str(docker), "Driver": "overlayfs"}
    folders = disks.of_jobs(tmp_path, info, containerd=small)
    assert folders == (tmp_path, docker, small)
    assert disks.apart(folders) == [tmp_path, small]


@pytest.mark.parametrize("root", ["", "/no/such/folder", "relative"])
def test_a_root_that_cant_be_seen_is_left_out(tmp_path: Path, root: str) -> None:
    assert disks.of_jobs(tmp_path, {"DockerRootDir": root, "Driver": "overlay2"}) == (tmp_path,)


def test_a_disk_that_is_gone_has_no_room(tmp_path: Path) -> None:
    assert disks.free((tmp_path, tmp_path / "gone")) == 0
