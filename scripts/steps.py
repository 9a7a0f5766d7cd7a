"""Run named steps with one progress line each, in the order of their needs; standard library only (no venv yet)."""

import hashlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path

from children import Children, Interrupted

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / ".build"
LOGS = BUILD / "logs"
STAMPS = BUILD / "stamps"
FRAMES = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
CHILDREN = Children()
"""Every command of every step."""


class StepFailed(Exception):
    """A step could not be done; the message is one sentence."""


@dataclass(frozen=True)
class Step:
    """One piece of work. It is skipped while `inputs` hash as they did when it last succeeded and `outputs` exist.

    `needs` names steps that come first. An `optional` step that fails is reported by `hint` and the rest goes on;
    for any other step the run ends, and `hint` (or the last `tail` lines of the log) says why. What `run` returns is
    shown behind the step's time.
    """

    name: str
    title: str
    run: Callable[["Log"], str | None]
    needs: tuple[str, ...] = ()
    inputs: tuple[Path, ...] = ()
    outputs: tuple[Path, ...] = ()
    optional: bool = False
    hint: str = ""
    tail: int = 25
    salt: str = ""

    def digest(self) -> str:
        """sha256 over salt, names and contents of the inputs (folders: every file below)."""
        digest = hashlib.sha256(self.salt.encode())
        for path in sorted(_files(self.inputs)):
            digest.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes() + b"\0")
        return digest.hexdigest()

    @property
    def stamp(self) -> Path:
        return STAMPS / self.name

    def done_before(self) -> bool:
        """Whether the last success still holds."""
        if not self.stamp.exists() or not all(path.exists() for path in self.outputs):
            return False
        return self.stamp.read_text(encoding="ascii") == self.digest()


def _files(paths: Iterable[Path]) -> Iterable[Path]:
    for path in paths:
        yield from (found for found in path.rglob("*") if found.is_file()) if path.is_dir() else [path]


@dataclass
class Log:
    """The log file of one step, and how a step runs commands."""

    path: Path

    def command(
        self, argv: list[str], *, env: dict[str, str] | None = None, timeout: float | None = 1800, cwd: Path = ROOT
    ) -> None:
        """Run to the end with all output in the log; raises StepFailed when it fails or isn't there."""
        with self.path.open("ab") as log:
            log.write(f"$ {' '.join(argv)}\n".encode())
            log.flush()
            try:
                code = CHILDREN.run(
                    argv,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    cwd=cwd,
                    env={**os.environ, **(env or {})},
                    timeout=timeout,
                )
            except Interrupted:
                raise StepFailed("interrupted") from None
            except FileNotFoundError:
                raise StepFailed(f"{argv[0]} is not installed") from None
            except subprocess.TimeoutExpired:
                raise StepFailed(f"{argv[0]} did not end within {timeout:.0f} s") from None
        if code:
            raise StepFailed(f"{Path(argv[0]).name} ended with code {code}")

    def tail(self, lines: int) -> str:
        """The last lines of the log."""
        if not self.path.exists():
            return ""
        return "\n".join(self.path.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])


@dataclass
class Progress:
    """One line per finished step; on a terminal a spinner with the times of those that run."""

    running: dict[str, float] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)
    live: bool = field(default_factory=sys.stdout.isatty)
    stopped: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> "Progress":
        if self.live:
            self._thread = threading.Thread(target=self._spin, daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopped.set()
        if self.live:
            self._thread.join()
            self._write("\r\x1b[2K")

    def started(self, title: str) -> None:
        with self.lock:
            self.running[title] = time.monotonic()

    def finished(self, title: str, mark: str, note: str = "") -> None:
        with self.lock:
            took = time.monotonic() - self.running.pop(title, time.monotonic())
            clear = "\r\x1b[2K" if self.live else ""
            self._write(f"{clear}  {mark} {title:<44} {took:6.1f} s{f'  {note}' if note else ''}\n")

    def _spin(self) -> None:
        frame = 0
        while not self.stopped.wait(0.1):
            frame += 1
            with self.lock:
                now = time.monotonic()
                parts = [f"{title} {now - since:.0f} s" for title, since in self.running.items()]
                if parts:
                    self._write(f"\r\x1b[2K  {FRAMES[frame % len(FRAMES)]} {' · '.join(parts)}"[:160])

    @staticmethod
    def _write(text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()


def run_steps(steps: list[Step], *, workers: int = 2) -> list[str]:
    """Do all that isn't done, up to `workers` at a time; returns the hints of optional steps that failed.

    After another failure nothing more is begun. Once what runs beside it has ended, StepFailed names all that failed.
    """
    for folder in (LOGS, STAMPS):
        folder.mkdir(parents=True, exist_ok=True)
    left = {step.name: step for step in steps}
    done: set[str] = set()
    hints: list[str] = []
    failures: list[str] = []
    with Progress() as progress, ThreadPoolExecutor(workers) as pool:
        running: dict[Future[str], Step] = {}
        while left or running:
            ready = [step for step in left.values() if set(step.needs) <= done]
            for step in [] if failures else ready:
                del left[step.name]
                if step.done_before():
                    done.add(step.name)
                else:
                    running[pool.submit(_attempt, step, progress)] = step
            if not running:
                if failures:
                    break
                continue
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                step = running.pop(future)
                done.add(step.name)
                problem = future.result()
                if problem and step.optional:
                    hints.append(step.hint)
                elif problem:
                    failures.append(problem)
    if failures:
        raise StepFailed("\n\n".join(failures))
    return hints


def _attempt(step: Step, progress: Progress) -> str:
    """Run one step; empty, or what went wrong in words for a person."""
    log = Log(LOGS / f"{step.name}.log")
    log.path.unlink(missing_ok=True)
    step.stamp.unlink(missing_ok=True)
    progress.started(step.title)
    try:
        note = step.run(log) or ""
    except StepFailed as error:
        progress.finished(step.title, "!" if step.optional else "✗", str(error))
        return step.hint or f"{step.title}: {error}; see {log.path.relative_to(ROOT)}\n{log.tail(step.tail)}"
    step.stamp.write_text(step.digest(), encoding="ascii")
    progress.finished(step.title, "✓", note)
    return ""
