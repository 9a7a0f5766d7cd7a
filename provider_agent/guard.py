"""The guard: one small process per container that freezes it when the host's lease on it runs out.

It runs as `python3 -I -S guard.py FOLDER` from a versioned copy of this file (code.py), so it uses the standard library
alone. A keeper that is not Python (keeper.py) starts it, freezes the container the moment it dies, and starts it again.
FOLDER is the container's folder (runtime/oci.py):

  outer.json   {"path", "version"}: the cgroup around the container's own, which nobody but guards freezes and thaws
  lease        two equal lines "VERSION BOOT_ID DEADLINE"; until DEADLINE (CLOCK_BOOTTIME seconds) the job may run.
               Another boot or another version means: run out
  fenced       written at the freeze: {"at", "deadline"}; the container stays frozen until `release`
  held         the agent holds the container (drain, migrate, hibernate, void award)
  fence.lock   flock around every change of the above and of the outer cgroup's state
  guard.lock   OFD lock for as long as a guard lives; guard.pid its pid

The outer cgroup is frozen if and only if the lease is over, it was fenced, it is held, or no guard lives. Docker, runc
and CRIU freeze and thaw the container's own cgroup below it, which neither undoes nor hides this.
"""

import fcntl
import functools
import json
import os
import signal
import struct
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

TICK_S = 0.1
SHORTEST_S = 0.005
WIDTH = 20
LEASE_VERSION = 2
ENDED = 77
"""Exit status of a guard that has nothing left to guard: its keeper does not start it again."""
_FLOCK = "hhqqi4x"


@dataclass(frozen=True)
class Freezer:
    """A freezer cgroup. `version` is 1 (freezer.state) or 2 (cgroup.freeze)."""

    path: Path
    version: int

    def exists(self) -> bool:
        return os.path.exists(self.control)

    @property
    def control(self) -> str:
        """The file that freezes and thaws."""
        return f"{self.path}/{'freezer.state' if self.version == 1 else 'cgroup.freeze'}"

    @property
    def word(self) -> str:
        """What freezes when written to `control`."""
        return "FROZEN" if self.version == 1 else "1"

    def freeze(self) -> None:
        """Ask the kernel to stop every task of the cgroup; returns at once. Raises OSError when the cgroup is gone."""
        _write(self.control, self.word)

    def thaw(self) -> None:
        """Let the tasks run again. Raises OSError when the cgroup is gone."""
        _write(self.control, "THAWED" if self.version == 1 else "0")

    def requested(self) -> bool:
        """Whether a freeze of this very cgroup was asked for (it may still be under way)."""
        return read(f"{self.path}/{'freezer.self_freezing' if self.version == 1 else 'cgroup.freeze'}").strip() == "1"

    def frozen(self) -> bool:
        """Whether every task has stopped, be it by a cgroup above."""
        if self.version == 1:
            return read(self.control).strip() == "FROZEN"
        return "frozen 1" in read(f"{self.path}/cgroup.events").splitlines()

    def populated(self) -> bool:
        """Whether there are tasks in it or below. Raises OSError when the cgroup is gone."""
        if self.version == 2:
            return "populated 1" in read(f"{self.path}/cgroup.events").splitlines()
        return bool(self.pids())

    def pids(self) -> tuple[int, ...]:
        """The processes of the cgroup and of those below it."""
        found: list[int] = []
        for procs in (self.path / "cgroup.procs", *self.path.glob("*/**/cgroup.procs")):
            with suppress(FileNotFoundError):
                found.extend(int(line) for line in procs.read_text(encoding="ascii").split())
        return tuple(dict.fromkeys(found))


def read(path: str) -> str:
    """A small file, without the cost of a stream: a guard reads ten times a second, on every host, for ever."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(handle, 4096).decode("ascii", "replace")
    finally:
        os.close(handle)


def _write(path: str, text: str) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(handle, text.encode("ascii"))
    finally:
        os.close(handle)


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


def find_freezer(folder: Path) -> Freezer | None:
    """The container's own (inner) freezer by the pid that runc wrote; None before the start and after the end."""
    pid = init_of(folder)
    try:
        freezer = freezer_of(pid) if pid is not None else None
    except (OSError, ValueError):
        return None
    # A stale pid file may name another container's process by now: runc's cgroup carries the container's id.
    return freezer if freezer is not None and folder.name in freezer.path.name else None


def init_of(folder: Path) -> int | None:
    """The pid of the container's first process as runc wrote it; it may be gone. None before the start."""
    try:
        bundle = json.loads((folder / "bundle.json").read_text(encoding="utf-8"))
        return int(Path(bundle["pid_file"]).read_text(encoding="ascii"))
    except (OSError, ValueError, KeyError):
        return None


def outer_of(folder: Path) -> Freezer | None:
    """The outer cgroup as recorded at `docker create`; None without a record."""
    try:
        raw = json.loads((folder / "outer.json").read_text(encoding="utf-8"))
        return Freezer(Path(raw["path"]), int(raw["version"]))
    except (OSError, ValueError, KeyError):
        return None


def boottime() -> float:
    """Seconds of CLOCK_BOOTTIME: goes on during suspend and is never set."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@functools.cache
def boot_id() -> str:
    """This boot's id; a deadline of CLOCK_BOOTTIME means nothing under another."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def write_lease(folder: Path, deadline: float) -> None:
    """Set the moment (CLOCK_BOOTTIME seconds) at which the guard freezes; in place, so it works on a full disk too."""
    text = f"{LEASE_VERSION} {boot_id()} {f'{deadline:0{WIDTH}.6f}'[:WIDTH]}"
    handle = os.open(folder / "lease", os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        os.pwrite(handle, f"{text}\n{text}\n".encode(), 0)
    finally:
        os.close(handle)


def read_lease(folder: Path) -> float:
    """The deadline; a torn or missing file, after a few tries, counts as run out (0.0), as do another boot's and
    another version's.
    """
    for _ in range(5):
        try:
            first, second = read(f"{folder}/lease").splitlines()
            if first == second:
                version, boot, deadline = first.split()
                return float(deadline) if version == str(LEASE_VERSION) and boot == boot_id() else 0.0
        except (OSError, ValueError):
            pass
        time.sleep(0.001)
    return 0.0


@contextmanager
def fence_lock(folder: Path) -> Iterator[None]:
    """Hold FOLDER/fence.lock."""
    handle = os.open(f"{folder}/fence.lock", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def take_life(path: Path) -> int | None:
    """Lock a life's file for this process (an OFD lock, fcntl(2)); the handle to keep, None when another holds it."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.fcntl(handle, fcntl.F_OFD_SETLK, struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
    except OSError:
        os.close(handle)
        return None
    return handle


def lives(path: Path) -> bool:
    """Whether a process holds the lock; asking never takes it."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        asked = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        answer = fcntl.fcntl(handle, fcntl.F_OFD_GETLK, asked)
        return int(struct.unpack(_FLOCK, answer)[0]) != fcntl.F_UNLCK
    finally:
        os.close(handle)


def alive(folder: Path) -> bool:
    """Whether a guard lives for this container."""
    return lives(folder / "guard.lock")


def refusal(folder: Path) -> str | None:
    """Why the container must not begin to run now; None when a guard lives and the lease runs."""
    if not alive(folder):
        return "no guard watches this container"
    if boottime() > read_lease(folder) or (folder / "fenced").exists():
        return "the lease on this job is over"
    return None


def enforce(folder: Path, outer: Freezer, now: float) -> bool:
    """Make the outer cgroup what the files say; records a fence the first time. Returns whether it stands still."""
    with fence_lock(folder):
        deadline, recorded = read_lease(folder), os.path.exists(f"{folder}/fenced")
        fenced = now > deadline or recorded
        still = fenced or os.path.exists(f"{folder}/held")
        if still != outer.requested():
            outer.freeze() if still else outer.thaw()
        if fenced and not recorded:
            note(folder / "fenced", json.dumps({"at": now, "deadline": deadline}))
        return still


def release(folder: Path, outer: Freezer, deadline: float) -> None:
    """The agent's thaw: a new deadline, neither fenced nor held, tasks run. For use after the gateway confirmed the
    job's fence.
    """
    with fence_lock(folder):
        write_lease(folder, deadline)
        for name in ("fenced", "held"):
            (folder / name).unlink(missing_ok=True)
        outer.thaw()


def note(path: Path, text: str) -> None:
    """Write a small file; on a full disk at least make it be there, by renaming one that can be spared."""
    try:
        path.write_text(text, encoding="utf-8")
    except OSError:
        if not path.exists():
            os.replace(path.with_name("guard.pid"), path)


def note_pid(path: Path) -> None:
    """For people and tests; a full disk is no reason not to guard."""
    with suppress(OSError):
        path.with_suffix(".part").write_text(str(os.getpid()), encoding="ascii")
        path.with_suffix(".part").replace(path)


def watch(folder: Path, outer: Freezer) -> None:
    """Guard until the folder or the outer cgroup is gone."""
    while os.path.isdir(folder) and outer.exists():
        now = boottime()
        with suppress(OSError):
            enforce(folder, outer, now)
        left = read_lease(folder) - boottime()
        time.sleep(min(TICK_S, max(left, SHORTEST_S)) if left > 0 else TICK_S)


def settle_in() -> None:
    """What every guard does first: no signal of a terminal, never the OOM killer's choice."""
    for number in (signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("-1000", encoding="ascii")


def main(folder: Path) -> int:
    """Entry point of the process; ends at once when another guard holds the lock."""
    outer = outer_of(folder)
    if outer is None or take_life(folder / "guard.lock") is None:
        return ENDED
    settle_in()
    note_pid(folder / "guard.pid")
    watch(folder, outer)
    return ENDED


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
