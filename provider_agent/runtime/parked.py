"""Dumps and frozen tasks: how a dump begins, and what becomes of one that was fenced or killed in its middle.

CRIU runs code inside the tasks. When they are frozen from outside it waits, and a SIGKILL would leave that code in
them. So such a dump is parked: it ends by itself after a thaw, or after the tasks were killed. A task in whose place
CRIU was making a system call when it was killed dies of SIGTRAP, and the others may never notice: such a container is
broken, by its host, and begins again from its last checkpoint.

  dump.session  the tasks that a dump stops; from before its start until nothing is left of it and they were seen to
  dump.pid      the session it runs in, written by itself
  broken        why the container must begin again
"""

import fcntl
import json
import os
import shutil
import threading
import time
from contextlib import suppress
from pathlib import Path

import psutil

from provider_agent import guard, guards
from provider_agent.guard import Freezer, find_freezer
from provider_agent.runtime import diagnosis
from provider_agent.runtime.errors import DumpFailed
from provider_agent.runtime.everlease_runc import replace_file

POLL_S = 0.2
SEEN_TO_S = 0.5
"""A task that CRIU left in its own code is dead as soon as it runs."""
BROKEN = "the host interrupted a checkpoint, and a process of the job died of it"


def begin(folder: Path, inner: Freezer, container: str, *, hold: bool) -> bool:
    """Before CRIU: refuse a fenced container; freeze the container's own cgroup when it is to be, or is, held.

    Returns whether it is held. Raises DumpFailed, ContainerFault.
    """
    if unsettled(folder):
        if guards.stands_still(folder):
            raise DumpFailed(container, "an earlier dump waits in its tasks", "", retryable=True)
        settle(folder)
        if (folder / "broken").exists():
            raise DumpFailed(container, BROKEN, "", retryable=True)
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


def reap_later(folder: Path, leavings: tuple[Path, ...]) -> threading.Thread:
    """Once the parked dump has ended: throw what it left away, and let the tasks go on as far as guards let them."""
    thread = threading.Thread(target=_reap, args=(folder, leavings), daemon=True)
    thread.start()
    return thread


def _reap(folder: Path, leavings: tuple[Path, ...]) -> None:
    """Wait until the tasks may run and no dump is under way: only then can what is left of one be ended safely."""
    done = False
    while folder.is_dir() and not done:
        with suppress(OSError):
            done = not guards.stands_still(folder) and _clean_up(folder)
        if not done:
            time.sleep(POLL_S)
    for path in leavings:
        shutil.rmtree(path, ignore_errors=True)


def _clean_up(folder: Path) -> bool:
    handle = os.open(folder / "dump.lock", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if not _try_lock(handle) or guards.stands_still(folder):
            return False
        settle(folder)
        return True
    finally:
        os.close(handle)


def _try_lock(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def note_session(folder: Path) -> None:
    """A dump begins: remember what it will stop."""
    (folder / "dump.pid").unlink(missing_ok=True)
    inner = find_freezer(folder)
    replace_file(str(folder / "dump.session"), json.dumps(inner.pids() if inner is not None else ()))


def in_session(folder: Path, argv: list[str]) -> list[str]:
    """The command that becomes `argv` and has said before which session it leads, whoever is killed meanwhile."""
    return ["/bin/sh", "-c", 'echo $$ >"$0"; exec "$@"', str(folder / "dump.pid"), *argv]


def forget_session(folder: Path) -> None:
    """A dump ended by itself: CRIU let go of every task."""
    for name in ("dump.pid", "dump.session"):
        (folder / name).unlink(missing_ok=True)


def unsettled(folder: Path) -> bool:
    """Whether a dump is under way, or was interrupted and it isn't known yet what became of the tasks."""
    return (folder / "dump.session").exists()


def fault(folder: Path, code: int) -> str:
    """Why the host is to blame for an exit with this code; empty where no dump is."""
    return BROKEN if code != 0 and (folder / "broken").exists() else ""


def settle(folder: Path) -> None:
    """After a dump that did not end by itself: end what is left of it, let the tasks go on, and see that all of them
    do; else end the container, which is broken. Call it with the dump's lock held and the tasks free to run.
    """
    tasks = _tasks(folder)
    end_session(folder)
    let_go_on(folder)
    if tasks and not diagnosis.criu_let_go(folder / "target" / "work" / "dump.log"):
        time.sleep(SEEN_TO_S)
        inner = find_freezer(folder)
        if not tasks <= frozenset(inner.pids() if inner is not None else ()):
            guard.note(folder / "broken", "")
            guards.kill(folder)
    forget_session(folder)


def end_session(folder: Path) -> None:
    """Kill what is left of the last dump's session: a killed CRIU leaves stopped children behind."""
    try:
        session = int((folder / "dump.pid").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return
    for process in psutil.process_iter(["cmdline"]):
        words = " ".join(process.info["cmdline"] or [])
        try:
            if ("criu" in words or "runc" in words) and os.getsid(process.pid) == session:
                process.kill()
        except (ProcessLookupError, psutil.NoSuchProcess):
            continue


def _tasks(folder: Path) -> frozenset[int]:
    try:
        return frozenset(json.loads((folder / "dump.session").read_text(encoding="ascii")))
    except (OSError, ValueError, TypeError):
        return frozenset()
