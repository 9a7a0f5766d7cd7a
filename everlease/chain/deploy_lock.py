"""One deployment at a time to each deployments file: whoever comes second is told, and sends nothing."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from everlease.chain.deployment import NotWritten
from everlease.chain.errors import ChainError
from everlease.locking import take


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
        descriptor = take(path)
    except BlockingIOError as error:
        raise DeploymentRuns(out) from error
    except OSError as error:
        raise NotWritten(path, error) from error
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)
