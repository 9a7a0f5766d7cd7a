"""Every check of the repository: linters, type checker, generated code, contract and unit tests two at a time, and at
the end the tests that take the machine for themselves.

Usage: python3 scripts/check.py [--lint] [PYTEST ARGUMENTS…]

A check is quiet unless it fails; its log is in .build/logs.
"""

import os
import subprocess
import sys
from pathlib import Path

from steps import ROOT, Log, Step, StepFailed, run_steps

BIN = ROOT / ".venv" / "bin"
UNIT = "tests/unit"
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


def main(arguments: list[str]) -> int:
    """Run the checks, then pytest in the foreground so that its summary is the last line.

    Pytest's own arguments choose among all tests; without any, the unit tests are a check.
    """
    lint_only = "--lint" in arguments
    chosen = [word for word in arguments if word != "--lint"]
    tests = [step for step in TESTS if not (chosen and step.name == "check-unit")]
    try:
        run_steps([always(step) for step in (LINTS if lint_only else LINTS + tests)])
    except StepFailed as error:
        print(f"A check failed. {error}", file=sys.stderr)
        return 1
    if lint_only:
        return 0
    os.chdir(ROOT)
    rest = chosen or [f"--ignore={UNIT}"]
    return subprocess.run([str(BIN / "pytest"), "-q", *rest], check=False).returncode


def always(step: Step) -> Step:
    """A check has no memory: its stamp is dropped so that it runs."""
    step.stamp.unlink(missing_ok=True)
    return step


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
