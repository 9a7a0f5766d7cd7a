"""Locks between processes: flock(2) on a file. The kernel gives a lock back however its holder ends."""

import fcntl
import os
from pathlib import Path


def take(path: Path, *, wait: bool = False) -> int:
    """Lock the file at ``path``, made with mode 0600 where there is none; close the descriptor to give it back.

    Raises BlockingIOError where another holds it, unless told to ``wait``; OSError where the file can't be made. The
    file may be removed by its holder: then the one that is at ``path`` afterwards is locked.
    """
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor
        except FileNotFoundError:
            pass
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
