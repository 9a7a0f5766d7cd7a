"""What a build that was killed left is deleted, and what it had mounted stays whole."""

import os
import subprocess
from pathlib import Path

import pytest
from hosts.folders import clear, mounts_below


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_what_was_mounted_in_a_build_is_not_deleted_with_it(tmp_path: Path) -> None:
    outside, build = tmp_path / "outside", tmp_path / "build"
    point = build / "root" / "with space"
    for folder in (outside, point):
        folder.mkdir(parents=True)
    (outside / "precious").write_text("kept")
    subprocess.run(["mount", "--bind", outside, point], check=True)
    assert mounts_below(build) == [point]
    clear(build)
    assert not build.exists()
    assert (outside / "precious").read_text() == "kept"


def test_where_nothing_was_left_there_is_nothing_to_clear(tmp_path: Path) -> None:
    clear(tmp_path / "build")
