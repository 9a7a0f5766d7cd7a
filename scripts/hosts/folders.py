"""Folders that the bench makes: one call at a time, and nothing that is mounted in them is ever deleted."""

import contextlib
import fcntl
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil


@contextlib.contextmanager
def locked(file: Path) -> Iterator[None]:
    """Alone among threads and processes, by a lock file beside what is made."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def clear(folder: Path) -> None:
    """Delete what a build that was killed left. mmdebstrap mounts the machine's own /proc, /sys and devices in a root
    that it makes: those are taken out first. Raises CalledProcessError where that fails, with nothing deleted.
    """
    for point in reversed(mounts_below(folder)):
        subprocess.run(["umount", str(point)], check=True, capture_output=True)
    shutil.rmtree(folder, ignore_errors=True)


def mounts_below(folder: Path) -> list[Path]:
    """Mount points at or below a folder, in the order of mounting."""
    points = [Path(mount.mountpoint) for mount in psutil.disk_partitions(all=True)]
    return [point for point in points if point.is_relative_to(folder.resolve())]
