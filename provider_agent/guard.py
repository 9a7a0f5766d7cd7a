"""The guard: one small process per container that freezes it when the host's lease on it runs out.

It is started with setsid and lives on when the agent is killed. Run as `python3 -I -S guard.py FOLDER`, so this file
uses the standard library alone. FOLDER is the container's folder (runtime/oci.py):

  lease        two equal numbers: the last moment, in seconds of CLOCK_BOOTTIME, until which the job may run
  bundle.json  written by everlease-runc at create; names the file with the pid of the container's init
  fenced       written here at the freeze: {"at", "deadline"}; the container stays frozen until `release`
  fence.lock   held around every check-and-freeze and every thaw, so that a thaw is never overtaken by an older check
  guard.lock   held for as long as a guard lives; guard.pid its pid

CRIU freezes and thaws the same cgroup during a dump, so the guard checks again at every tick and freezes again where
needed. cgroup v1 was run; the v2 path (cgroup.freeze) was written from the kernel's documentation and not run.
"""

import fcntl
import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

TICK_S = 0.1
START_WAIT_S = 900.0
WIDTH = 20


@dataclass(frozen=True)
class Freezer:
    """The freezer cgroup of one container. `version` is 1 (freezer.state) or 2 (cgroup.freeze)."""

    path: Path
    version: int

    def exists(self) -> bool:
        return self.control.exists()

    @property
    def control(self) -> Path:
        """The file that freezes and thaws."""
        return self.path / ("freezer.state" if self.version == 1 else "cgroup.freeze")

    def freeze(self) -> None:
        """Ask the kernel to stop every task of the cgroup; returns at once. Raises OSError when the cgroup is gone."""
        self.control.write_text("FROZEN" if self.version == 1 else "1", encoding="ascii")

    def thaw(self) -> None:
        """Let the tasks run again. Raises OSError when the cgroup is gone."""
        self.control.write_text("THAWED" if self.version == 1 else "0", encoding="ascii")

    def requested(self) -> bool:
        """Whether a freeze was asked for (it may still be under way)."""
        return self.control.read_text(encoding="ascii").strip() in {"FROZEN", "FREEZING", "1"}

    def frozen(self) -> bool:
        """Whether every task has stopped."""
        if self.version == 1:
            return self.control.read_text(encoding="ascii").strip() == "FROZEN"
        return "frozen 1" in (self.path / "cgroup.events").read_text(encoding="ascii").splitlines()

    def pids(self) -> tuple[int, ...]:
        """The processes of the cgroup and of those below it."""
        found: list[int] = []
        for procs in (self.path / "cgroup.procs", *self.path.glob("**/cgroup.procs")):
            found.extend(int(line) for line in procs.read_text(encoding="ascii").split())
        return tuple(dict.fromkeys(found))


def freezer_of(pid: int, *, proc: Path = Path("/proc"), mounts: Path = Path("/sys/fs/cgroup")) -> Freezer:
    """The freezer cgroup that a process is in, by /proc/PID/cgroup (cgroups(7)). Raises FileNotFoundError when the
    pid is gone.
    """
    unified = None
    for line in (proc / str(pid) / "cgroup").read_text(encoding="utf-8").splitlines():
        _, controllers, path = line.split(":", 2)
        if "freezer" in controllers.split(","):
            return Freezer(mounts / "freezer" / path.lstrip("/"), 1)
        if controllers == "":
            unified = path
    if unified is None:
        raise FileNotFoundError(f"process {pid} is in no freezer cgroup")
    root = mounts / "unified" if (mounts / "unified").is_dir() else mounts
    return Freezer(root / unified.lstrip("/"), 2)


def boottime() -> float:
    """Seconds of CLOCK_BOOTTIME: goes on during suspend and is never set."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def write_lease(folder: Path, deadline: float) -> None:
    """Set the moment (CLOCK_BOOTTIME seconds) at which the guard freezes; in place, so it works on a full disk too."""
    text = f"{deadline:0{WIDTH}.6f}"[:WIDTH]
    handle = os.open(folder / "lease", os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        os.pwrite(handle, f"{text}\n{text}\n".encode(), 0)
    finally:
        os.close(handle)


def read_lease(folder: Path) -> float:
    """The deadline; a torn or missing file counts as run out (0.0) after a few tries."""
    for _ in range(5):
        try:
            first, second = (folder / "lease").read_text(encoding="ascii").split()
            if first == second:
                return float(first)
        except (OSError, ValueError):
            pass
        time.sleep(0.001)
    return 0.0


@contextmanager
def fence_lock(folder: Path) -> Iterator[None]:
    """Hold FOLDER/fence.lock."""
    handle = os.open(folder / "fence.lock", os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def find_freezer(folder: Path) -> Freezer | None:
    """The container's freezer by the pid that runc wrote at create; None before the start and after the end."""
    try:
        bundle = json.loads((folder / "bundle.json").read_text(encoding="utf-8"))
        pid = int(Path(bundle["pid_file"]).read_text(encoding="ascii"))
        freezer = freezer_of(pid)
    except (OSError, ValueError, KeyError):
        return None
    # A stale pid file may name another container's process by now: runc's cgroup carries the container's id.
    return freezer if folder.name in freezer.path.name else None


def enforce(folder: Path, freezer: Freezer, now: float) -> bool:
    """Freeze when the lease is over or was; records the first time. Returns whether the container is fenced."""
    with fence_lock(folder):
        deadline, record = read_lease(folder), folder / "fenced"
        if now <= deadline and not record.exists():
            return False
        if not freezer.requested():
            freezer.freeze()
        if not record.exists():
            _record(record, json.dumps({"at": now, "deadline": deadline}))
        return True


def release(folder: Path, freezer: Freezer, deadline: float) -> None:
    """The agent's thaw: a new deadline, no fence record, tasks run. For use after the gateway confirmed the job's
    fence.
    """
    with fence_lock(folder):
        write_lease(folder, deadline)
        (folder / "fenced").unlink(missing_ok=True)
        freezer.thaw()


def _record(path: Path, text: str) -> None:
    # The freeze counts, not the note: a full disk must not end the guard.
    try:
        path.write_text(text, encoding="utf-8")
    except OSError:
        path.touch(exist_ok=True)


def watch(folder: Path) -> None:
    """Wait for the container, guard it, return when its cgroup or its folder is gone."""
    give_up = boottime() + START_WAIT_S
    freezer = find_freezer(folder)
    while freezer is None:
        if not folder.is_dir() or boottime() > give_up:
            return
        time.sleep(TICK_S / 5)
        freezer = find_freezer(folder)
    while folder.is_dir() and freezer.exists():
        try:
            enforce(folder, freezer, boottime())
        except OSError:
            if not freezer.exists():
                return
        time.sleep(TICK_S)


def main(folder: Path) -> None:
    """Entry point of the process; returns at once when another guard holds the lock."""
    handle = os.open(folder / "guard.lock", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("-1000", encoding="ascii")
    _record(folder / "guard.pid", str(os.getpid()))
    watch(folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
