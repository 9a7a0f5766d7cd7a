"""Take a checkpoint of a running container with runc and CRIU, without Docker noticing.

A dump is a folder, made here and handed to the store as it is:
  criu/            CRIU's images
  files/NAME.tar   each capture (oci.Capture), archived by CRIU's post-dump script while the tasks were frozen
  work/            logs, not part of the checkpoint; CRIU's are in the container's folder
  dump.json        written last and synced: a folder without it is an aborted dump and is deleted (`sweep`)
"""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from provider_agent import guards
from provider_agent.guard import find_freezer
from provider_agent.runtime import diagnosis, oci, parked
from provider_agent.runtime.commands import last_line
from provider_agent.runtime.errors import CheckpointRefused, ContainerFault, DumpFailed, Parked
from provider_agent.runtime.everlease_runc import replace_file
from provider_agent.runtime.wire_images import frozen_seconds

TIMEOUT_S = 300.0


@dataclass(frozen=True)
class DumpResult:
    """A finished dump. `pause_s`: how long the tasks stood still by CRIU's own count, 0.0 when they were frozen
    before.
    """

    path: Path
    mode: str
    pause_s: float
    total_s: float
    bytes: int
    frozen: bool


@dataclass(frozen=True)
class TrialResult:
    """Either the figures of a dump (its folder is gone again) or the reason why the job can't be checkpointed."""

    dump: DumpResult | None
    error: DumpFailed | None


@dataclass(frozen=True)
class HostTools:
    """The binaries that dump: runc, and CRIU or None where the host can't checkpoint processes."""

    runc: Path
    criu: Path | None


class Checkpointer:
    """Dumps the containers of one agent, one dump per container at a time."""

    def __init__(self, tools: HostTools, state: Path) -> None:
        self.tools, self._state = tools, state

    def dump(
        self, container: str, target: Path, *, stay_frozen: bool = False, timeout: float = TIMEOUT_S
    ) -> DumpResult:
        """Checkpoint a running container into the new folder `target`; the job goes on as soon as its memory is
        written.

        With `stay_frozen` (drain, migrate, hibernate), or when the container is held already, its own cgroup is frozen
        before CRIU begins, CRIU hands it back frozen, and then the outer one is: no instruction runs after the
        checkpoint. guards.thaw or ContainerEngine.remove ends that. A dump that fails or is killed leaves the job
        running. A dump of a fenced container is refused; one in whose middle the fence falls fails at once and is
        parked: CRIU waits in the frozen tasks, and what it writes after a thaw is thrown away.
        Raises DumpFailed, ContainerFault.
        """
        if self.tools.criu is None:
            raise DumpFailed(container, "this host has no usable CRIU", "", retryable=False, permanent=True)
        folder = oci.container_folder(self._state, container)
        freezer = find_freezer(folder)
        if freezer is None:
            raise ContainerFault("checkpoint", container[:12], "it is not running", retryable=True)
        with self.exclusive(folder) as lock:
            started = time.monotonic()
            held = parked.begin(folder, freezer, container, hold=stay_frozen)
            try:
                _make_folders(target, ("criu", "files"))
                _fresh_work(folder, target)
                _point(folder / "target", target)
                self._checkpoint(container, target, lock, timeout)
                pause = 0.0 if held else frozen_seconds(target / "criu")
                if held:
                    guards.freeze(folder)
                result = _finish(target, "process", pause, started, frozen=held)
                parked.let_go_on(folder)
            except Parked:
                parked.reap_later(folder, (target / "criu", target / "files"))
                raise
            except BaseException:
                parked.settle_now_or_later(folder)
                for name in ("criu", "files"):
                    shutil.rmtree(target / name, ignore_errors=True)
                raise
            (folder / "target").unlink(missing_ok=True)
        return result

    def trial(self, container: str, target: Path) -> TrialResult:
        """Dump once, soon after the start, and throw it away: tells early what can't be checkpointed, and what a dump
        costs.
        """
        try:
            dump, error = self.dump(container, target), None
        except DumpFailed as failure:
            dump, error = None, failure
        finally:
            shutil.rmtree(target, ignore_errors=True)
        return TrialResult(dump, error)

    def snapshot(self, container: str, target: Path, *, timeout: float = TIMEOUT_S) -> DumpResult:
        """Files mode: archive /checkpoint alone into the new folder `target`. Raises DumpFailed, ContainerFault.

        The job is frozen meanwhile, so that the files agree; the shell that thaws it lives on when the agent is killed.
        """
        folder = oci.container_folder(self._state, container)
        freezer = find_freezer(folder)
        source = next(
            capture.path for capture in oci.captures_of(self._state, container) if capture.name == "checkpoint"
        )
        with self.exclusive(folder) as lock:
            started = time.monotonic()
            _make_folders(target, ("files", "work"))
            shutil.rmtree(folder / "dumping", ignore_errors=True)
            script = oci.snapshot_script(target, source, freezer)
            paused = time.monotonic()
            try:
                _archive(folder, container, target, script, lock, timeout)
            except BaseException:
                parked.settle_now_or_later(folder)
                shutil.rmtree(target / "files", ignore_errors=True)
                raise
            pause = time.monotonic() - paused if freezer is not None else 0.0
            parked.forget_session(folder)
            return _finish(target, "files", pause, started, frozen=False)

    def _checkpoint(self, container: str, target: Path, lock: int, timeout: float) -> None:
        """Run `runc checkpoint`; once more when the freezer did not settle. Forgets the session once CRIU ended by
        itself. Raises DumpFailed.
        """
        bundle, folder = oci.read_bundle(self._state, container), oci.container_folder(self._state, container)
        argv = [str(self.tools.runc), "--root", str(bundle.root)]
        argv += ["--systemd-cgroup"] if bundle.systemd_cgroup else []
        argv += ["checkpoint", "--leave-running", "--tcp-established", "--file-locks"]
        argv += ["--image-path", str(target / "criu"), "--work-path", str(target / "work"), container]
        work = (target / "work").resolve()
        log = work / "runc.log"
        if self.tools.criu is not None:
            (work / "criu").symlink_to(self.tools.criu.absolute())  # its file may have any name
        for attempt in (1, 2):
            try:
                code = _run_apart(folder, argv, lock, log, timeout, path=work)
            except _Fenced as error:
                raise Parked(container, "the job was fenced meanwhile", diagnosis.tail(log), retryable=True) from error
            if code == 0:
                parked.forget_session(folder)
                return
            said = diagnosis.tail(log)
            full = diagnosis.disk_is_full(target) or diagnosis.disk_is_full(folder)
            if code is not None and code > 0 and (full or diagnosis.criu_answered(said)):
                # CRIU's log may not say so: a full disk cuts it off.
                parked.forget_session(folder)
            if attempt == 1 and "unable to freeze" in said:
                continue
            why = diagnosis.explain_dump(said, work / "dump.log", work / "files.log")
            reason = "it took too long, or CRIU was killed" if code is None else why.sentence
            if full:
                raise DumpFailed(container, diagnosis.FULL, why.log_tail, retryable=True)
            raise DumpFailed(container, reason, why.log_tail, retryable=not why.permanent, permanent=why.permanent)

    def settle_later(self, container: str) -> threading.Thread:
        """After an agent's restart: once the tasks may run and no dump is under way any more, end what a killed one
        left and let the job go on. Does not wait; the thread ends when that is done.
        """
        return parked.reap_later(oci.container_folder(self._state, container))

    @contextmanager
    def exclusive(self, folder: Path) -> Iterator[int]:
        """One dump at a time; runc inherits the lock, so a new agent waits for the dump of a killed one."""
        handle = os.open(folder / "dump.lock", os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            give_up = time.monotonic() + TIMEOUT_S
            while True:
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > give_up or guards.fenced(folder):
                        raise ContainerFault(
                            "checkpoint", folder.name[:12], "another dump is under way", retryable=True
                        ) from None
                    time.sleep(0.05)
            yield handle
        finally:
            os.close(handle)


def read_dump(target: Path) -> DumpResult:
    """The record of a finished dump. Raises CheckpointRefused for an aborted one."""
    try:
        raw = json.loads((target / "dump.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise CheckpointRefused(str(target), "it has no dump.json, so it was never finished") from None
    return DumpResult(target, raw["mode"], raw["pause_s"], raw["total_s"], raw["bytes"], raw["frozen"])


def sweep(folder: Path) -> tuple[Path, ...]:
    """Delete the aborted dumps directly below `folder` (after an agent's restart) and return their paths."""
    aborted = tuple(path for path in folder.iterdir() if path.is_dir() and not (path / "dump.json").exists())
    for path in aborted:
        shutil.rmtree(path, ignore_errors=True)
    return aborted


def _make_folders(target: Path, names: tuple[str, ...]) -> None:
    try:
        target.mkdir(parents=True, mode=0o700)
        for name in names:
            (target / name).mkdir()
    except OSError as error:
        raise ContainerFault("write a checkpoint to", str(target), last_line(str(error)), retryable=True) from error


def _fresh_work(folder: Path, target: Path) -> None:
    """`dumping` of the container, empty, as `work` of the dump: what CRIU said outlives a dump that is thrown away."""
    work = folder / "dumping"
    shutil.rmtree(work, ignore_errors=True)
    try:
        work.mkdir(mode=0o700)
        (target / "work").symlink_to(work.resolve())
    except OSError as error:
        raise ContainerFault("write a checkpoint to", str(target), last_line(str(error)), retryable=True) from error


def _point(link: Path, target: Path) -> None:
    part = link.with_name("target.part")
    part.unlink(missing_ok=True)
    part.symlink_to(target.resolve())
    part.replace(link)


def _finish(target: Path, mode: str, pause: float, started: float, *, frozen: bool) -> DumpResult:
    size = sum(path.lstat().st_size for part in ("criu", "files") for path in (target / part).glob("*"))
    result = DumpResult(target, mode, round(pause, 4), round(time.monotonic() - started, 4), size, frozen)
    record = asdict(result) | {"path": target.name}
    replace_file(str(target / "dump.json"), json.dumps(record))
    return result


def _archive(folder: Path, container: str, target: Path, script: str, lock: int, timeout: float) -> None:
    """Run the script of a snapshot; none of its code is in the tasks, so they may be frozen. Raises DumpFailed."""
    log = target / "work" / "snapshot.log"
    code = _run_apart(folder, ["/bin/sh", "-c", script], lock, log, timeout, in_tasks=False)
    if code != 0:
        said = diagnosis.tail(log)
        why = diagnosis.FULL if diagnosis.disk_is_full(target) else last_line(said)
        raise DumpFailed(container, "it took too long" if code is None else why, said, retryable=True)


class _Fenced(Exception):
    """The container was fenced in the middle of a dump."""


def _wait(process: subprocess.Popen[bytes], timeout: float, folder: Path, in_tasks: bool) -> int:
    """The exit code. Raises TimeoutExpired past the limit and soon after CRIU was killed, and _Fenced.

    runc would wait for a CRIU that is gone, or for tasks that no longer answer CRIU.
    """
    give_up, lost = time.monotonic() + timeout, 0
    while True:
        try:
            return process.wait(0.1)
        except subprocess.TimeoutExpired:
            children = psutil.Process(process.pid).children() if in_tasks else []
            dead = [child for child in children if _is_dead(child)]
            lost = lost + 1 if children and len(dead) == len(children) else 0
            if in_tasks and guards.stands_still(folder):
                raise _Fenced from None
            if time.monotonic() > give_up or lost > 10:
                raise


def _is_dead(child: psutil.Process) -> bool:
    """A child that was just reaped is none that runc waits for."""
    try:
        return bool(child.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _run_apart(
    folder: Path,
    argv: list[str],
    lock: int,
    log: Path,
    timeout: float,
    *,
    path: Path | None = None,
    in_tasks: bool = True,
) -> int | None:
    """Run in a session of its own, so that it ends by itself when the agent is killed; exit code, None past the limit.

    Raises _Fenced when the container was fenced meanwhile and the tool works in its tasks, where it is left to wait.
    """
    env = dict(os.environ)
    if path is not None:
        env["PATH"] = os.pathsep.join([str(path), env.get("PATH", os.defpath)])
    parked.note_session(folder)
    with log.open("ab") as stream:
        process = subprocess.Popen(
            parked.in_session(folder, argv),
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            start_new_session=True,
            pass_fds=(lock,),
            env=env,
        )
    try:
        return _wait(process, timeout, folder, in_tasks)
    except BaseException as error:
        # Never in frozen tasks: they would be left broken, with CRIU's code in them.
        with guards.fence_lock(folder):
            still = in_tasks and guards.stands_still(folder)
            if not still:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        if still:
            threading.Thread(target=process.wait, daemon=True).start()
            raise _Fenced from error
        if isinstance(error, (subprocess.TimeoutExpired, _Fenced)):
            return None
        raise
