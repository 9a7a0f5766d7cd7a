"""Every check of the repository, two at a time.

Usage: python3 scripts/check.py [--lint] [PYTEST ARGUMENTS…]

First what keeps the processor busy: linters, type checker, generated code, contract and unit tests. Then the tests on
real servers, which mostly wait, in two columns: processes side by side that share no server. They come last and alone,
since hosts and nodes are judged by seconds. With arguments, pytest runs once, in the foreground, with those.

A check is quiet unless it fails; its log is in .build/logs. One that fails stops none that runs beside it.
"""

import os
import sys
from pathlib import Path

from steps import BUILD, CHILDREN, ROOT, Log, Step, StepFailed, run_steps

BIN = ROOT / ".venv" / "bin"
UNIT = "tests/unit"
HOSTS = ("tests/integration/agent", "tests/integration/runtime", "tests/e2e")
"""Tests with Docker daemons, network namespaces, cgroups and CRIU of their own. All of them are in one column: they
share the image and the tools that are built on demand, and only they look at the machine's processes and mounts.
"""
FORGE = ROOT / "node_modules/@foundry-rs/forge-linux-amd64/bin/forge"


def _check(name: str, title: str, *argv: str | Path, needs: tuple[str, ...] = ()) -> Step:
    words = [str(word) for word in argv]

    def run(log: Log) -> None:
        log.command(words)

    return Step(f"check-{name}", title, run, needs=needs)


LINTS = [
    _check("ruff", "ruff check", BIN / "ruff", "check", "--quiet", "."),
    _check("format", "ruff format --check", BIN / "ruff", "format", "--check", "--quiet", "."),
    _check("imports", "import rules", BIN / "lint-imports"),
    _check("solhint", "solhint", "npm", "run", "--silent", "lint"),
    _check("forge-fmt", "forge fmt --check", FORGE, "fmt", "--check"),
    _check("mypy", "mypy --strict", BIN / "mypy"),
]
TESTS = [
    _check("bindings", "generated bindings are current", BIN / "python", "scripts/generate_bindings.py", "--check"),
    _check("forge-test", "contract tests", FORGE, "test", needs=("check-bindings",)),
    _check("unit", "unit tests", BIN / "pytest", "-q", UNIT),
]


def column(name: str, title: str, *which: str, pytest: Path = BIN / "pytest") -> Step:
    """A pytest process with its own log and cache. Its last line, which counts the skipped, stands behind its time."""
    cache = f"cache_dir={BUILD / 'pytest' / name}"
    words = [str(pytest), "-q", "--durations=20", "-o", cache, *which]

    def run(log: Log) -> str:
        log.command(words, timeout=None)
        return log.tail(1).strip("= ")

    return Step(f"check-{name}", title, run, tail=150)


COLUMNS = [
    column("hosts", "tests with hosts", *HOSTS),
    column("servers", "all other tests", "tests", *(f"--ignore={folder}" for folder in (UNIT, *HOSTS))),
]


def main(arguments: list[str]) -> int:
    """Run the checks, then the columns or the chosen tests; the exit code."""
    if "--lint" in arguments:
        return run_rounds(LINTS)
    if not arguments:
        return run_rounds(LINTS + TESTS, COLUMNS)
    code = run_rounds(LINTS + [step for step in TESTS if step.name != "check-unit"])
    if code == 0:
        os.chdir(ROOT)
        os.execv(BIN / "pytest", ["pytest", "-q", *arguments])
    return code


def run_rounds(*rounds: list[Step]) -> int:
    """One round of steps after the other, each to its end; the exit code: 128 and its number after a signal.

    A signal ends what runs: a column stops its servers first.
    """
    CHILDREN.obey()
    for steps in rounds:
        try:
            run_steps([always(step) for step in steps])
        except StepFailed as error:
            if CHILDREN.told:
                print("Interrupted; what ran has ended.", file=sys.stderr)
                return 128 + CHILDREN.told
            print(f"A check failed. {error}", file=sys.stderr)
            return 1
    return 0


def always(step: Step) -> Step:
    """A check has no memory: its stamp is dropped so that it runs."""
    step.stamp.unlink(missing_ok=True)
    return step


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
