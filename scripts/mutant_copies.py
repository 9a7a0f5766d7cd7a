"""Copies of the contracts and tests that stay built, in which one edit after another is tried.

Tests load contracts by artifact (profile `mutate` of foundry.toml), and the escrow, which deploys the staking
contract, is the only one of ours that they deploy. So an edit is compiled by a process that stays (mutant_code.py), its
bytecode is put into the escrow's artifact, and forge, which sees no source change, only runs the tests. The copies show
at their start that tests run what the artifact holds, and that they pass without an edit.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from queue import Queue

from mutant_code import ESCROW, STAKING, Compiler, DoesNotCompile

ROOT = Path(__file__).resolve().parents[1]
FORGE = ROOT / "node_modules/@foundry-rs/forge-linux-amd64/bin/forge"
CAMPAIGN = "tests/contracts/Campaigns.t.sol"
WORKERS = 2
TIMEOUT_S = 600
"""An edit that keeps the tests from ending counts as caught."""
FUZZ_RUNS = ("4", "64")
"""Nearly every edit is caught with few runs; what isn't is asked again with more."""
_TIMED_OUT = 124
_INLINED = re.compile(r"\b(Settlement|Signatures|TypedData|Deposits)\.\w+\(|\bis\b.*\b(LeaseEscrow|ProviderStaking)\b")
"""Code of ours within a test would not have the edit."""


@dataclass(frozen=True)
class Verdict:
    """What the tests said of an edit.

    ``kind``: caught, unnoticed, equivalent (the same bytecode as without it), or invalid (it doesn't compile).
    ``detail``: the test and what it names, or the compiler's error. ``suite``: the test's file. ``code``: sha256 of the
    bytecode, the same for edits that are the same program.
    """

    kind: str
    detail: str
    seconds: float
    suite: str = ""
    code: str = ""


@dataclass(frozen=True)
class Copy:
    """A built copy and its compiler."""

    folder: Path
    compiler: Compiler

    def install(self, code: bytes, contract: str = ESCROW) -> None:
        """Put ``code`` into the contract's artifact."""
        artifact = self.folder / "out" / Path(contract).name / f"{Path(contract).stem}.json"
        content = json.loads(artifact.read_text(encoding="utf-8"))
        content["bytecode"]["object"] = "0x" + code.hex()
        artifact.write_text(json.dumps(content), encoding="utf-8")

    def forge(self, *argv: str, fuzz_runs: str = FUZZ_RUNS[-1]) -> subprocess.CompletedProcess[str]:
        """Run forge in the copy."""
        env = os.environ | {"FOUNDRY_PROFILE": "mutate", "FOUNDRY_FUZZ_RUNS": fuzz_runs}
        command = ["timeout", str(TIMEOUT_S), str(FORGE), *argv]
        return subprocess.run(command, cwd=self.folder, env=env, capture_output=True, text=True, check=False)


class Copies:
    """As many built copies as workers; thread-safe."""

    def __init__(self, folder: Path, workers: int = WORKERS) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        self._seen: dict[tuple[str, bool], Verdict] = {}
        self._free: Queue[Copy] = Queue()
        for index in range(workers):
            copy = folder / str(index)
            if index:
                shutil.copytree(folder / "0", copy, symlinks=True)
            self._free.put(_built(copy) if index == 0 else Copy(copy, Compiler(copy, _settings(copy))))

    def close(self) -> None:
        """End the compilers."""
        while not self._free.empty():
            self._free.get().compiler.close()

    @contextmanager
    def _one(self) -> Iterator[Copy]:
        copy = self._free.get()
        try:
            yield copy
        finally:
            self._free.put(copy)

    def judge(self, path: str, text: str, *, campaign: bool = False) -> Verdict:
        """Let the unit tests, or the campaign alone, run with ``text`` in place of the file at ``path``."""
        started = time.monotonic()
        with self._one() as copy:
            try:
                code = copy.compiler.escrow(path, text)
            except DoesNotCompile as error:
                return Verdict("invalid", str(error), time.monotonic() - started)
            digest = hashlib.sha256(code).hexdigest()
            if code == copy.compiler.original:
                return Verdict("equivalent", "", time.monotonic() - started, code=digest)
            verdict = self._seen.get((digest, campaign))
            if verdict is None:
                copy.install(code)
                verdict = _asked(copy, campaign)
        self._seen[digest, campaign] = verdict
        return replace(verdict, seconds=time.monotonic() - started, code=digest)


def _asked(copy: Copy, campaign: bool) -> Verdict:
    """What the tests say of the code that is installed."""
    choice = "--match-path" if campaign else "--no-match-path"
    for runs in FUZZ_RUNS[-1:] if campaign else FUZZ_RUNS:
        done = copy.forge("test", "--fail-fast", choice, CAMPAIGN, fuzz_runs=runs)
        if done.returncode == _TIMED_OUT:
            return Verdict("caught", "the tests don't end", 0)
        if done.returncode != 0:
            return _caught(done.stdout, done.stderr)
    return Verdict("unnoticed", "", 0)


def _caught(out: str, error: str) -> Verdict:
    caught = re.search(r"\[FAIL.*?\] *(\w+)\(|^ *(invariant_all)\(", out, re.MULTILINE)
    if not caught:
        raise RuntimeError(f"forge failed, but no test did: {(out + error)[-2000:]}")
    suites = re.findall(r"^Ran \d+ tests? for ([^:\s]+):", out[: caught.start()], re.MULTILINE)
    reason = re.search(r"Broken\(\"?(.*?)\"?\)\]", out)
    name = caught.group(1) or caught.group(2)
    return Verdict("caught", name + (f", {reason.group(1)}" if reason else ""), 0, suites[-1] if suites else "")


def _built(folder: Path) -> Copy:
    """The first copy, once it is shown that its tests run the artifacts."""
    folder.mkdir(parents=True)
    for name in ("contracts", "tests/contracts"):
        shutil.copytree(ROOT / name, folder / name)
    shutil.copy(ROOT / "foundry.toml", folder)
    for name in ("node_modules", "scripts"):
        (folder / name).symlink_to(ROOT / name)
    for path in sorted((folder / "tests/contracts").rglob("*.sol")):
        if not {"halmos", "gas"} & set(path.parts) and (found := _INLINED.search(path.read_text(encoding="utf-8"))):
            raise RuntimeError(f"{path.name} has code of the contracts within it: {found.group(0)}")
    done = subprocess.run(
        [str(FORGE), "build"], cwd=folder, env=os.environ | {"FOUNDRY_PROFILE": "mutate"}, check=False
    )
    if done.returncode != 0:
        raise RuntimeError("the contracts don't build")
    copy = Copy(folder, Compiler(folder, _settings(folder)))
    copy.install(b"\xfe", STAKING)
    copy.install(copy.compiler.original)
    if (verdict := _asked(copy, False)).kind != "unnoticed":
        raise RuntimeError(f"without an edit {verdict.detail} fails")
    copy.install(b"\xfe")
    if _asked(copy, False).detail != "setUp":
        raise RuntimeError("the tests don't run the escrow's artifact")
    return copy


def _settings(folder: Path) -> dict[str, object]:
    """The compiler's settings as forge wrote them down."""
    cache = json.loads((folder / "cache/forge/solidity-files-cache.json").read_text(encoding="utf-8"))
    settings: dict[str, object] = cache["profiles"]["default"]["solc"]
    return settings
