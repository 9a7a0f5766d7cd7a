"""What makes a file survive a power cut, beside the fsync of its content."""

import os
from pathlib import Path


def fsync_directory(path: Path) -> None:
    """Make names created in or removed from `path` durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
