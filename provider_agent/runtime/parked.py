"""Dumps and frozen tasks: how a dump begins, and what becomes of one in whose middle the container was fenced.

CRIU runs code inside the tasks. When they are frozen from outside it waits, and a SIGKILL would leave that code in
them. So such a dump is parked: it ends by itself after a thaw, or after the tasks were killed.
"""

import fcntl
import os
import shutil
import threading
import time
from contextlib import suppress
from pathlib import Path

import psutil

from provider_agent import guards
from provider_agent.guard import Freezer, find_freezer
from provider_agent.runtime.errors import DumpFailed

POLL_S = 0.2


def begin(folder: Path, inner: Freezer, container: str, *, hold: bool) -> bool:
    """Before CRIU: refuse a fenced container; freeze the container's own cgroup when it is to be, or is, held.

    Returns whether it is held. Raises DumpFailed, ContainerFault.
    """
    with guards.fence_lock(folder):
        held = (folder / "held").exists()
        if guards.fenced(folder) or (guards.stands_still(folder) and not held):
            raise DumpFailed(container, "the job is fenced on this host", "", retryable=True)
        if not (hold or held):
            return False
        inner.freeze()
        if held:
            # CRIU can't work below a frozen cgroup; the inner one keeps every task where it is.
            outer = guards.outer(folder)
            (folder / "held").unlink()
            outer.thaw()
    guards.wait_frozen(inner, folder)
    return True


def let_go_on(folder: Path) -> None:
    """Thaw the container's own cgroup after a dump; what guards froze stands still by the outer one."""
    inner = find_freezer(folder)
    with suppress(OSError):
        if inner is not None and inner.requested():
            inner.thaw()


def reap_later(folder: Path, target: Path | None) -> None:
    """Once the parked dump has ended: throw its output away, and let the tasks go on as far as guards let them."""
    threading.Thread(target=_reap, args=(folder, target), daemon=True).start()


def _reap(folder: Path, target: Path | None) -> None:
    """Wait until the tasks may run and no dump is under way: only then can what is left of one be ended safely."""
    done = False
    while folder.is_dir() and not done:
        with suppress(OSError):
            done = not guards.stands_still(folder) and _clean_up(folder)
        if not done:
            time.sleep(POLL_S)
    if target is not None:
        for name in ("criu", "files"):
            shutil.rmtree(target / name, ignore_errors=True)


def _clean_up(folder: Path) -> bool:
    handle = os.open(folder / "dump.lock", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if not _try_lock(handle) or guards.stands_still(folder):
            return False
        end_session(folder)
        let_go_on(folder)
        return True
    finally:
        os.close(handle)


def _try_lock(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def end_session(folder: Path) -> None:
    """Kill what is left of the last dump's session: a killed CRIU leaves stopped children behind."""
    try:
        session = int((folder / "dump.session").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return
    for process in psutil.process_iter(["cmdline"]):
        words = " ".join(process.info["cmdline"] or [])
        try:
            if ("criu" in words or "runc" in words) and os.getsid(process.pid) == session:
                process.kill()
        except (ProcessLookupError, psutil.NoSuchProcess):
            continue
