"""Processes that outlive the command that started them: recorded by pid and start time, stopped by exactly those."""

import json
import os
import pwd
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from everlease.stack.errors import NotReady

POLL_S = 0.05


@dataclass(frozen=True, slots=True)
class ProcessRecord:
    """One process. ``birth`` is its start in clock ticks since boot with the boot's id: a recycled pid differs.

    ``env`` (what it was given beside the caller's environment; it holds passwords), ``cwd`` and ``user`` are what a
    second start of the same takes.
    """

    name: str
    pid: int
    birth: str
    argv: tuple[str, ...]
    log: str
    stop_signal: int
    env: dict[str, str] = field(default_factory=dict, repr=False)
    cwd: str = ""
    user: str | None = None


def birth_of(pid: int) -> str | None:
    """Start of a live process as ProcessRecord keeps it (proc(5), stat field 22); None when it is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    if fields[0] in "ZX":
        return None
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return f"{fields[19]}@{boot}"


def identity(user: str | None) -> dict[str, Any]:
    """Popen's arguments to run as this system user with their own group alone; none for None."""
    if user is None:
        return {}
    entry = pwd.getpwnam(user)
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


class ProcessTable:
    """The processes of one stack, kept in ``folder``/processes.json; logs go to ``folder``/logs/NAME.log."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._file = folder / "processes.json"

    def records(self) -> list[ProcessRecord]:
        """Every recorded process in the order of starting, alive or not."""
        if not self._file.exists():
            return []
        raw = json.loads(self._file.read_text(encoding="utf-8"))
        return [ProcessRecord(**{**item, "argv": tuple(item["argv"])}) for item in raw]

    def get(self, name: str) -> ProcessRecord | None:
        """The record of this name."""
        return next((record for record in self.records() if record.name == name), None)

    def alive(self, record: ProcessRecord) -> bool:
        """Whether exactly this process still runs."""
        return birth_of(record.pid) == record.birth

    def log_of(self, name: str) -> Path:
        """Where a process writes."""
        return self.folder / "logs" / f"{name}.log"

    def start(
        self,
        name: str,
        argv: Sequence[str | Path],
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        netns: str | None = None,
        user: str | None = None,
        stop_signal: signal.Signals = signal.SIGTERM,
    ) -> ProcessRecord:
        """Start in a session of its own, output to its log. EVERLEASE_* of the caller's environment isn't passed on."""
        words = [str(word) for word in argv]
        if netns is not None:
            words = ["nsenter", f"--net=/run/netns/{netns}", "--", *words]
        log = self.log_of(name)
        log.parent.mkdir(parents=True, exist_ok=True)
        record = ProcessRecord(
            name, 0, "", tuple(words), str(log), int(stop_signal), dict(env or {}), str(cwd or self.folder), user
        )
        started = _spawn(record)
        self._save([*(old for old in self.records() if old.name != name), started])
        return started

    def restart(self, record: ProcessRecord) -> ProcessRecord:
        """Start a process that has ended once more, just as it was; it keeps its place in the order."""
        started = _spawn(record)
        self._save([started if old.name == record.name else old for old in self.records()])
        return started

    def await_ready(self, record: ProcessRecord, check: Callable[[], bool], *, timeout: float = 60.0) -> None:
        """Poll ``check`` until it is true; raises NotReady when the process ends first or time is up."""
        give_up = time.monotonic() + timeout
        while not check():
            if not self.alive(record):
                raise NotReady(record.name, "ended before it was ready", Path(record.log))
            if time.monotonic() > give_up:
                raise NotReady(record.name, f"was not ready within {timeout:.0f} s", Path(record.log))
            time.sleep(POLL_S)

    def stop(self, record: ProcessRecord, *, timeout: float = 20.0) -> None:
        """Send its stop signal, wait, then SIGKILL it and its process group; forget it."""
        if self.alive(record):
            _send(record.pid, record.stop_signal)
            self._wait(record, timeout)
        if self.alive(record):
            self.kill(record)
            self._wait(record, timeout)
        self._save([other for other in self.records() if other.name != record.name])

    def kill(self, record: ProcessRecord) -> None:
        """SIGKILL the process and its process group, if it is still this one; the record stays."""
        if self.alive(record):
            try:
                os.killpg(record.pid, signal.SIGKILL)
            except ProcessLookupError:
                _send(record.pid, signal.SIGKILL)

    def stop_all(self, *, timeout: float = 20.0) -> None:
        """Stop everything in reverse order of starting."""
        for record in reversed(self.records()):
            self.stop(record, timeout=timeout)

    def _wait(self, record: ProcessRecord, timeout: float) -> None:
        give_up = time.monotonic() + timeout
        while self.alive(record) and time.monotonic() < give_up:
            with suppress(ChildProcessError):
                os.waitpid(record.pid, os.WNOHANG)
            time.sleep(POLL_S)

    def _save(self, records: list[ProcessRecord]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        temporary = self._file.with_suffix(".part")
        temporary.unlink(missing_ok=True)
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump([asdict(record) for record in records], file, indent=1)
        os.replace(temporary, self._file)


def _spawn(record: ProcessRecord) -> ProcessRecord:
    """Start what the record describes; the record with its pid and birth. Raises NotReady."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("EVERLEASE_")}
    with Path(record.log).open("ab") as output:
        process = subprocess.Popen(
            record.argv,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**inherited, "PYTHONUNBUFFERED": "1", **record.env},
            cwd=record.cwd,
            **identity(record.user),
            start_new_session=True,
        )
    # It outlives us on purpose: `_wait` reaps it, and Popen has no complaint when it is forgotten.
    process.returncode = 0
    birth = birth_of(process.pid)
    if birth is None:
        raise NotReady(record.name, "ended at once", Path(record.log))
    return replace(record, pid=process.pid, birth=birth)


def _send(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return
