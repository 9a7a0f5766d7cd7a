"""Dumps and frozen tasks: how a dump begins, and what becomes of one that was fenced or killed in its middle.

CRIU runs code inside the tasks. When they are frozen from outside it waits, and a SIGKILL would leave that code in
them. So such a dump is parked: it ends by itself after a thaw, or after the tasks were killed. The process in whose
place CRIU was making a system call when it was killed dies of SIGTRAP, and the others may never notice; a connection
that CRIU was reading stays shut. Such a container is broken, by its host, and begins again from its last checkpoint.

  dump.session  the session a dump runs in, and the boot; from before its start until nothing is left of it and the
                tasks were seen to
  dumping       CRIU's and runc's logs of the last dump; it outlives the dump's own folder
  broken        the container must begin again; "init" where it lost its first process, "connections" where it lost
                those: then how it ended tells, too
"""

import errno
import fcntl
import logging
import os
import re
import shutil
import signal
import threading
import time
from contextlib import suppress
from pathlib import Path

import psutil

from provider_agent import guard, guards
from provider_agent.guard import Freezer, find_freezer, outer_of
from provider_agent.runtime import diagnosis, unlocking
from provider_agent.runtime.errors import DumpFailed
from provider_agent.runtime.everlease_runc import replace_file

POLL_S = 0.2
SEEN_TO_S = 3.0
"""A process that CRIU left in its own code is dead as soon as it runs."""
PATIENCE_S = 240.0
"""How long the dump of a killed agent may go on."""
TRAPPED = 128 + signal.SIGTRAP
BROKEN = "the host interrupted a checkpoint, and the job or a process of it did not outlive that"
AFTER_A_FAULT_S = 10.0
_WIDTH = 20
_INIT, _LINKS = "init", "connections"
_MARK, _TITLE = "EVERLEASE_DUMP", re.compile(r"\bcriu\b.* (?:swrk \d|--rpc )")
log = logging.getLogger(__name__)


def begin(folder: Path, inner: Freezer, container: str, *, hold: bool) -> bool:
    """Before CRIU: refuse a fenced container; freeze the container's own cgroup when it is to be, or is, held.

    Returns whether it is held. Raises DumpFailed, ContainerFault.
    """
    if unsettled(folder) and not settle(folder):
        raise DumpFailed(container, "an earlier dump waits in its tasks", "", retryable=True)
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
    try:
        guards.wait_frozen(inner, folder)
    except BaseException:
        let_go_on(folder)
        raise
    return True


def let_go_on(folder: Path) -> None:
    """Thaw the container's own cgroup after a dump; what guards froze stands still by the outer one."""
    inner = find_freezer(folder)
    with suppress(OSError):
        if inner is not None and inner.requested():
            inner.thaw()


def reap_later(folder: Path, leavings: tuple[Path, ...] = ()) -> threading.Thread:
    """Once the parked dump has ended: throw what it left away, and let the tasks go on as far as guards let them."""
    thread = threading.Thread(target=_reap, args=(folder, leavings), daemon=True)
    thread.start()
    return thread


def _reap(folder: Path, leavings: tuple[Path, ...]) -> None:
    """Wait until the tasks may run and no dump is under way: only then can what is left of one be ended safely.

    A dump that nobody waits for any more, and that goes on and on, is ended.
    """
    done, free, nobodys = False, time.monotonic(), _session(folder)
    while folder.is_dir() and not done:
        pause = POLL_S
        try:
            empty = _empty(folder)
            if guards.stands_still(folder) and not empty:
                free = time.monotonic()
            else:
                impatient = empty or time.monotonic() > free + PATIENCE_S
                done = _clean_up(folder, end=impatient and _session(folder) == nobodys)
        except (OSError, psutil.Error):
            pass
        except Exception:
            # The end of the job is judged only after this.
            log.exception("container %s: what a dump left can't be settled now", folder.name[:12])
            pause = AFTER_A_FAULT_S
        if not done:
            time.sleep(pause)
    for path in leavings:
        shutil.rmtree(path, ignore_errors=True)


def _clean_up(folder: Path, *, end: bool) -> bool:
    handle = os.open(folder / "dump.lock", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if not _try_lock(handle):
            if end:
                end_session(folder)
            return False
        return settle(folder)
    finally:
        os.close(handle)


def _empty(folder: Path) -> bool:
    """Whether no task is left; none is where the cgroup is gone, be it by a reboot."""
    found = outer_of(folder)
    try:
        return found is None or not found.populated()
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENODEV):
            raise
        return True


def _try_lock(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def note_session(folder: Path) -> None:
    """A dump begins, under this boot. The file has its final size, so that the session can be put into it on a full
    disk, too.
    """
    replace_file(str(folder / "dump.session"), " " * _WIDTH + f"\n{guard.boot_id()}\n")


def in_session(folder: Path, argv: list[str]) -> list[str]:
    """The command that becomes `argv` and has said before which session it leads, whoever is killed meanwhile. All that
    descends from it can be told by its environment.
    """
    script = f'echo $$ 1<>"$0"; export {_MARK}="$0"; exec "$@"'
    return ["/bin/sh", "-c", script, str(folder / "dump.session"), *argv]


def forget_session(folder: Path) -> None:
    """A dump ended by itself: CRIU let go of every task. Of its log no more is kept than people read."""
    diagnosis.cut(folder / "dumping" / "dump.log")
    (folder / "dump.session").unlink(missing_ok=True)


def unsettled(folder: Path) -> bool:
    """Whether a dump is under way, or was interrupted and it isn't known yet what became of the tasks."""
    return (folder / "dump.session").exists()


def fault(folder: Path, code: int) -> str:
    """Why the host is to blame for the end of this container with this exit code; empty where no dump is.

    Its first process may as well have come to its own end at that moment, and done all of its work.
    """
    try:
        word = (folder / "broken").read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""
    own_end = (word == _INIT and code != TRAPPED) or (word == _LINKS and code == 0)
    return "" if own_end else BROKEN


def settle_now_or_later(folder: Path) -> None:
    """`settle` at the end of a dump that failed, without hiding its error; by a thread when it can't be done now."""
    done = False
    try:
        done = settle(folder)
    except (OSError, psutil.Error):
        pass
    except Exception:
        log.exception("container %s: what a dump left can't be settled now", folder.name[:12])
    finally:
        if not done:
            reap_later(folder)


def settle(folder: Path) -> bool:
    """After a dump that did not end by itself: end what is left of it, let the tasks go on, and see that they do; else
    end the container, which is broken. Returns False when CRIU was at work in tasks that stand still, so that it must
    be called again.

    Call it with the dump's lock held.
    """
    if _suspect(folder) is not None and _stands_still(folder):
        return False
    end_session(folder)
    suspect = _suspect(folder)  # CRIU may have gone on to one before it was ended.
    cut_off = _cut_off(folder)
    locked = cut_off and not unlocking.unlock(folder)
    let_go_on(folder)
    if not (folder / "broken").exists():
        damage = "" if locked else _damage(folder, suspect, cut_off)
        if damage is not None:
            guard.note(folder / "broken", damage)
    if (folder / "broken").exists():
        if not guards.kill(folder):
            return False
    elif suspect is not None and _stands_still(folder):
        return False
    forget_session(folder)
    return True


def _damage(folder: Path, suspect: int | None, cut_off: bool) -> str | None:
    """The word for `broken`, where it is; None where the tasks go on."""
    lost = _lost(folder, suspect)
    if lost and not (suspect is not None and suspect == guard.init_of(folder) and _ends(suspect)):
        return ""
    if cut_off and diagnosis.criu_took_connections(folder / "dumping" / "dump.log"):
        # The tasks ran on as soon as CRIU was dead, and may have been refused their own connections.
        return _LINKS
    return _INIT if lost else None


def _stands_still(folder: Path) -> bool:
    return guards.stands_still(folder) and not _empty(folder)


def _cut_off(folder: Path) -> bool:
    """Whether CRIU began and did not come to its own end, at which it undoes what it did around the tasks."""
    criu_log = folder / "dumping" / "dump.log"
    return _of_this_boot(folder) and criu_log.exists() and not diagnosis.criu_ended(criu_log)


def _suspect(folder: Path) -> int | None:
    """The process that CRIU may have left in its own code."""
    return diagnosis.criu_held(folder / "dumping" / "dump.log") if _of_this_boot(folder) else None


def _lost(folder: Path, pid: int | None) -> bool:
    """Whether a process of the container (its pid as the host has it) died, looked at for a while."""
    inner, give_up = find_freezer(folder), time.monotonic() + SEEN_TO_S
    while pid is not None:
        if inner is None or not _holds(inner, pid) or _ends(pid):
            return True
        if time.monotonic() > give_up:
            return False
        time.sleep(0.05)
    return False


def _holds(inner: Freezer, pid: int) -> bool:
    try:
        return pid in inner.pids()
    except OSError:
        return False  # the cgroup went away meanwhile


def _ends(pid: int) -> bool:
    """Whether it is dead or on its way, how it ends being settled."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return True
    return "CoreDumping:\t1" in status or "State:\tZ" in status


def end_session(folder: Path) -> None:
    """Kill what is left of the last dump's session: a killed CRIU leaves stopped children behind."""
    session = _session(folder)
    found = _members(session) if session is not None else []
    if not _comes_from(found, str(folder / "dump.session")):
        return
    for process in found:
        with suppress(psutil.Error):
            process.kill()


def _members(session: int) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with suppress(ProcessLookupError, psutil.Error):
            if os.getsid(process.pid) == session:
                found.append(process)
    return found


def _comes_from(members: list[psutil.Process], mark: str) -> bool:
    """Whether a session is that of this container's dump; another may have its number by now.

    CRIU writes its title over its own environment, and so do its children: alone they are known by that.
    """
    marks, titles = set(), []
    for process in members:
        with suppress(psutil.Error):
            marks.add(process.environ().get(_MARK))
            titles.append(" ".join(process.cmdline()))
    marks.discard(None)
    return mark in marks if marks else any(_TITLE.search(title) for title in titles)


def _session(folder: Path) -> int | None:
    """The last dump's session; None where it isn't known or was another boot's."""
    try:
        number, _ = (folder / "dump.session").read_text(encoding="ascii").split()
        return int(number) if _of_this_boot(folder) else None
    except (OSError, ValueError):
        return None


def _of_this_boot(folder: Path) -> bool:
    """Whether a dump is unsettled that began since the host was started: of others no task is left."""
    try:
        return guard.boot_id() in (folder / "dump.session").read_text(encoding="ascii", errors="replace").split()
    except OSError:
        return False
