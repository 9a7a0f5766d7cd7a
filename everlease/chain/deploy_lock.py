"""One deployment at a time to each deployments file: whoever comes second is told, and sends nothing."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from everlease.chain.deployment import NotWritten
from everlease.chain.errors import ChainError


class DeploymentRuns(ChainError):
    """Another process deploys to the same file just now."""

    def __init__(self, out: Path) -> None:
        super().__init__(f"another deployment to {out} is running: wait until it has ended, then look at that file")
        self.out = out


@contextmanager
def only_one(out: Path) -> Iterator[None]:
    """Hold ``NAME.lock`` beside the deployments file ``out``; the kernel gives it back however the process ends.

    Raises DeploymentRuns at once where another process holds it, NotWritten where the file can't be made.
    """
    path = out.with_name(f"{out.name}.lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = _take(path)
    except BlockingIOError as error:
        raise DeploymentRuns(out) from error
    except OSError as error:
        raise NotWritten(path, error) from error
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def _take(path: Path) -> int:
    """Lock the file that is at ``path`` now: the one that was opened may have been removed before it was locked."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor
        except FileNotFoundError:
            pass
        except OSError:
            os.close(descriptor)
            raise
        os.close(descriptor)
