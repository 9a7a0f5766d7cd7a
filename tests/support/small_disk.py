"""A file system of one's own that is full when a test says so."""

import errno
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True, slots=True)
class SmallDisk:
    """A mounted tmpfs; ``filler`` is the file that takes what room there is."""

    root: Path
    filler: Path

    def fill(self) -> None:
        """Take the last byte."""
        with self.filler.open("ab", buffering=0) as file:
            for size in (1 << 16, 1 << 12, 1):
                while _written(file.fileno(), bytes(size)):
                    pass

    def free(self) -> None:
        """Give it all back."""
        self.filler.unlink()

    def names(self) -> set[str]:
        """What lies on it, the filler apart."""
        return {path.name for path in self.root.iterdir()} - {self.filler.name}


def _written(descriptor: int, data: bytes) -> bool:
    try:
        os.write(descriptor, data)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        return False
    return True


@contextmanager
def small_disk(root: Path, size: str = "1m") -> Iterator[SmallDisk]:
    """Mount so much at ``root``; the test is skipped where this process may not mount."""
    root.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(root)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    try:
        yield SmallDisk(root, root / "filler")
    finally:
        subprocess.run(["umount", str(root)], check=True)
