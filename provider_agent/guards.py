"""The agent's side of the guard processes: start one per container, notice a dead one, tell the lease."""

import fcntl
import os
import subprocess
import sys
import time
from pathlib import Path

from provider_agent import guard
from provider_agent.runtime.errors import ContainerFault

START_TIMEOUT_S = 10.0


def alive(folder: Path) -> bool:
    """Whether a guard holds the lock of this container's folder."""
    try:
        handle = os.open(folder / "guard.lock", os.O_WRONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def ensure(folder: Path) -> bool:
    """Start a guard unless one lives; returns whether a new one was started.

    Call it before `docker start` (the guard waits for the container) and then at every heartbeat, so that a killed
    guard is
    replaced. Write the lease first: a guard without one freezes at once. Raises ContainerFault when no guard comes up.
    """
    if alive(folder):
        return False
    python = os.path.realpath(sys.executable)
    # Double fork: the guard must be no child of the agent, neither a zombie when it ends nor in the agent's process
    # group.
    starter = "import os,sys\nif os.fork(): os._exit(0)\nos.setsid()\nos.execv(sys.argv[1], sys.argv[1:])"
    argv = [python, "-I", "-S", "-c", starter, python, "-I", "-S", str(Path(guard.__file__).resolve()), str(folder)]
    subprocess.run(
        argv, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/"
    )
    give_up = time.monotonic() + START_TIMEOUT_S
    while not alive(folder):
        if time.monotonic() > give_up:
            raise ContainerFault("guard", folder.name[:12], "the guard process did not start", retryable=True)
        time.sleep(0.01)
    return True


fence_lock = guard.fence_lock


def fenced(folder: Path) -> bool:
    """Whether the guard froze this container and nobody released it since."""
    return (folder / "fenced").exists()


def extend(folder: Path, deadline: float) -> None:
    """Move the deadline (CLOCK_BOOTTIME seconds) after an acknowledged heartbeat; does not thaw what is fenced."""
    guard.write_lease(folder, deadline)


def thaw(folder: Path, deadline: float) -> None:
    """Let a frozen container run again until `deadline`. Raises ContainerFault when it is gone."""
    freezer = guard.find_freezer(folder)
    if freezer is None:
        raise ContainerFault("thaw", folder.name[:12], "the container is not running")
    guard.release(folder, freezer, deadline)


def freeze(folder: Path, *, timeout: float = 10.0) -> None:
    """Freeze a container now (for a drain or an order of the gateway) and wait until every task has stopped."""
    freezer = guard.find_freezer(folder)
    if freezer is None:
        raise ContainerFault("freeze", folder.name[:12], "the container is not running")
    with guard.fence_lock(folder):
        freezer.freeze()
    give_up = time.monotonic() + timeout
    while not freezer.frozen():
        if time.monotonic() > give_up:
            raise ContainerFault("freeze", folder.name[:12], "its tasks did not stop in time", retryable=True)
        time.sleep(0.002)
