"""Copies of the contracts that stay built, in which one edit after another is tried.

The profile `mutate` of foundry.toml lets tests load contracts by artifact, so an edit compiles one contract alone.
"""

import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import Queue

ROOT = Path(__file__).resolve().parents[1]
FORGE = ROOT / "node_modules/@foundry-rs/forge-linux-amd64/bin/forge"
CAMPAIGN = "tests/contracts/Campaigns.t.sol"
WORKERS = 2
TIMEOUT_S = 600
"""An edit that keeps the tests from ending counts as caught."""
_TIMED_OUT = 124


@dataclass(frozen=True)
class Verdict:
    """What the tests said of an edit. ``kind``: caught, unnoticed, or invalid (it doesn't compile)."""

    kind: str
    detail: str
    seconds: float


class Copies:
    """As many built copies as workers; thread-safe."""

    def __init__(self, folder: Path, workers: int = WORKERS) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        self._free: Queue[Path] = Queue()
        for index in range(workers):
            copy = folder / str(index)
            if index == 0:
                _build(copy)
            else:
                shutil.copytree(folder / "0", copy, symlinks=True)
            self._free.put(copy)

    @contextmanager
    def _one(self) -> Iterator[Path]:
        copy = self._free.get()
        try:
            yield copy
        finally:
            self._free.put(copy)

    def judge(self, path: str, text: str, *, campaign: bool = False) -> Verdict:
        """Let the unit tests, or the campaign alone, run with ``text`` in place of the file at ``path``."""
        started = time.monotonic()
        with self._one() as copy:
            original = (copy / path).read_text(encoding="utf-8")
            (copy / path).write_text(text, encoding="utf-8")
            try:
                done = _forge(copy, "test", "--fail-fast", "--match-path" if campaign else "--no-match-path", CAMPAIGN)
            finally:
                (copy / path).write_text(original, encoding="utf-8")
        seconds = time.monotonic() - started
        if done.returncode == 0:
            return Verdict("unnoticed", "", seconds)
        if done.returncode == _TIMED_OUT:
            return Verdict("caught", "the tests don't end", seconds)
        caught = re.search(r"\[FAIL.*?\] *(\w+)\(|^ *(invariant_all)\(", done.stdout, re.MULTILINE)
        if not caught:
            return Verdict("invalid", (done.stdout + done.stderr)[-2000:], seconds)
        reason = re.search(r"Broken\(\"?(.*?)\"?\)\]", done.stdout)
        name = caught.group(1) or caught.group(2)
        return Verdict("caught", name + (f", {reason.group(1)}" if reason else ""), seconds)


def _build(folder: Path) -> None:
    folder.mkdir(parents=True)
    for name in ("contracts", "tests/contracts"):
        shutil.copytree(ROOT / name, folder / name)
    shutil.copy(ROOT / "foundry.toml", folder)
    for name in ("node_modules", "scripts"):
        (folder / name).symlink_to(ROOT / name)
    done = _forge(folder, "build")
    if done.returncode != 0:
        raise RuntimeError(f"the contracts don't build: {(done.stdout + done.stderr)[-2000:]}")


def _forge(folder: Path, *argv: str) -> subprocess.CompletedProcess[str]:
    env = os.environ | {"FOUNDRY_PROFILE": "mutate"}
    command = ["timeout", str(TIMEOUT_S), str(FORGE), *argv]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
