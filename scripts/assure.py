"""The long assurance of the contracts: fuzzing, campaign, proofs, slither, coverage, mutants and planted bugs.

Usage: python3 scripts/assure.py [NAME…]      NAME: slither, coverage, proofs, planted, mutation, fuzz, campaign.

Quiet but for one line per step; logs are in .build/logs, figures in .build/assure. See docs/assurance.md.
"""

import json
import os
import re
import sys
from collections import Counter
from dataclasses import replace

from setup import ANVIL, FORGE, UV
from steps import BUILD, ROOT, Log, Step, StepFailed, run_steps

VENV = ROOT / ".venv-assure"
BIN = VENV / "bin"
LOCK = ROOT / "requirements" / "assurance.txt"
FIGURES = BUILD / "assure"
TRIAGE = ROOT / "slither.triage.json"
HOURS = 3600.0
# Lines to which --ir-minimum maps no instruction of their own: heads, declarations, a modifier's call; assembly blocks
# are the other ones. A function that isn't called (`_onlyEscrow` too) and a branch that isn't taken are still told.
UNMAPPED = re.compile(r"function |modifier |_onlyEscrow\(\);|uint256 start;")
TOOLS_PATH = os.pathsep.join([str(FORGE.parent), str(ANVIL.parent), str(BIN), os.environ.get("PATH", "")])


def install(log: Log) -> None:
    """slither and halmos in an environment of their own."""
    if not (BIN / "python").exists():
        log.command([str(UV), "venv", "-q", "--clear", "--python", sys.executable, str(VENV)])
    log.command([str(UV), "pip", "sync", "-q", "--python", str(BIN / "python"), str(LOCK)])


def slither(log: Log) -> None:
    """Every finding must be in the triage file, and every entry of that file must still be found."""
    folder = BUILD / "slither"
    folder.mkdir(parents=True, exist_ok=True)
    report = folder / "findings.json"
    report.unlink(missing_ok=True)
    env = {"PATH": TOOLS_PATH, "FOUNDRY_OUT": str(folder / "out"), "FOUNDRY_CACHE_PATH": str(folder / "cache")}
    try:
        log.command([str(BIN / "slither"), ".", "--json", str(report)], env=env)
    except StepFailed:
        # Slither's exit status counts findings; without a report it failed.
        if not report.exists():
            raise
    found = findings(json.loads(report.read_text(encoding="utf-8")))
    known = Counter((entry["check"], entry["subject"]) for entry in json.loads(TRIAGE.read_text(encoding="utf-8")))
    new, stale = found - known, known - found
    if new:
        raise StepFailed(f"slither finds what isn't triaged in {TRIAGE.name}: {sorted(new)}")
    if stale:
        raise StepFailed(f"{TRIAGE.name} has entries that slither no longer finds: {sorted(stale)}")


def findings(report: dict[str, object]) -> Counter[tuple[str, str]]:
    """Count (detector, "Contract.element") of slither's JSON report; lines don't matter."""
    results = report["results"]
    if not isinstance(results, dict):
        raise StepFailed("slither's report has no results")
    counted: Counter[tuple[str, str]] = Counter()
    for finding in results.get("detectors", []):
        element = finding["elements"][0]
        parent = element.get("type_specific_fields", {}).get("parent", {}).get("name", "")
        counted[finding["check"], f"{parent}.{element['name']}"] += 1
    return counted


def coverage(log: Log) -> None:
    """Every line, function and branch of the contracts is reached by the unit tests; the mocks don't count."""
    folder = BUILD / "coverage"
    folder.mkdir(parents=True, exist_ok=True)
    report = folder / "lcov.info"
    report.unlink(missing_ok=True)
    # Without IR the compiler finds the stack too deep. The optimizer is off, so gas is another suite's concern.
    argv = [str(FORGE), "coverage", "--ir-minimum", "--exclude-tests", "--report", "lcov", "--report-file", str(report)]
    for folder_or_file in ("Campaigns.t.sol", "world/*", "gas/*", "halmos/**"):
        argv += ["--skip", f"tests/contracts/{folder_or_file}"]
    env = {"FOUNDRY_OUT": str(folder / "out"), "FOUNDRY_CACHE_PATH": str(folder / "cache"), "FOUNDRY_FUZZ_RUNS": "16"}
    log.command(argv, env=env, timeout=HOURS)
    missed = [place for place in unreached(report.read_text(encoding="utf-8")) if not unmapped(place)]
    if missed:
        raise StepFailed(f"no unit test reaches {', '.join(missed)}")


def unmapped(place: str) -> bool:
    """Whether "file:line" is of a kind that the compiler maps nothing to; never for "file:function"."""
    path, _, number = place.rpartition(":")
    if not number.isdigit():
        return False
    lines = (ROOT / path).read_text(encoding="utf-8").splitlines()[: int(number)]
    opened = max((at for at, line in enumerate(lines) if re.match(r" +assembly .*\{$", line)), default=None)
    in_assembly = opened is not None and not any(re.match(r" {0,8}\}$", line) for line in lines[opened:])
    return in_assembly or bool(UNMAPPED.match(lines[-1].strip()))


def unreached(lcov: str) -> list[str]:
    """What an LCOV report says was never run, as "file:line" or "file:function"; lines, branches and functions."""
    missed: list[str] = []
    source = ""
    for record in lcov.splitlines():
        kind, _, fields = record.partition(":")
        if kind == "SF":
            source = fields
        elif source.startswith("contracts/") and not source.startswith("contracts/mocks/"):
            values = fields.split(",")
            if kind in ("DA", "BRDA") and values[-1] in ("0", "-"):
                missed.append(f"{source}:{values[0]}")
            elif kind == "FNDA" and values[0] == "0":
                missed.append(f"{source}:{values[1]}")
    if not source:
        raise StepFailed("the coverage report names no file")
    return sorted(set(missed))


def proofs(log: Log) -> None:
    """Every check_ function of tests/contracts/halmos; a time-out of the solver is a failure."""
    argv = [str(BIN / "halmos"), "--root", ".", "--forge-build-out", ".build/halmos/out", "--function", "check_"]
    argv += ["--match-contract", "Proofs$", "--solver", "yices", "--solver-timeout-assertion", "120s", "--no-status"]
    log.command(argv, env={"PATH": TOOLS_PATH, "FOUNDRY_PROFILE": "halmos"}, timeout=HOURS)


def planted(log: Log) -> None:
    """At least fifteen known-bad edits, each caught."""
    log.command([sys.executable, "scripts/planted_bugs.py"], timeout=HOURS)


def mutation(log: Log) -> None:
    """A sample of slither-mutate's edits, the same each time; `scripts/mutation.py` alone judges all of them."""
    log.command([sys.executable, "scripts/mutation.py", "--sample", "60", "--seed", "1"], timeout=HOURS)


def tests(log: Log) -> None:
    """Compile what the last two steps run; one core is all the compiler takes."""
    log.command([str(FORGE), "build"], env={"FOUNDRY_PROFILE": "assure"}, timeout=HOURS)


def fuzz(log: Log) -> None:
    """Every test, each property with 100,000 runs."""
    argv = [str(FORGE), "test", "--no-match-path", "tests/contracts/Campaigns.t.sol"]
    log.command(argv, env={"FOUNDRY_PROFILE": "assure"}, timeout=HOURS)


def campaign(log: Log) -> None:
    """1,000 runs of 2,048 calls, all invariants after each; writes what each handler did to .build/assure."""
    FIGURES.mkdir(parents=True, exist_ok=True)
    calls = FIGURES / "calls.txt"
    calls.write_text("", encoding="ascii")
    env = {"FOUNDRY_PROFILE": "assure", "EVERLEASE_CAMPAIGN_REPORT": str(calls)}
    argv = [str(FORGE), "test", "--match-path", "tests/contracts/Campaigns.t.sol"]
    log.command(argv, env=env, timeout=4 * HOURS)
    (FIGURES / "handlers.txt").write_text(shares(calls.read_text(encoding="ascii")), encoding="ascii")


def shares(lines: str) -> str:
    """A table of the handlers: calls asked for, calls that acted, their share."""
    asked: Counter[str] = Counter()
    acted: Counter[str] = Counter()
    for line in lines.splitlines():
        name, calls, done = line.split()
        asked[name] += int(calls)
        acted[name] += int(done)
    rows = [f"{name:16}{asked[name]:10}{acted[name]:10}{acted[name] / asked[name]:8.3f}" for name in sorted(asked)]
    return "\n".join([f"{'handler':16}{'asked':>10}{'acted':>10}{'share':>8}", *rows]) + "\n"


STEPS = [
    Step("assure-install", "assurance tools", install, inputs=(LOCK,), outputs=(BIN / "slither",)),
    Step("assure-slither", "slither, against the triage file", slither, needs=("assure-install",)),
    Step("assure-coverage", "coverage of the contracts, 100 %", coverage, needs=("assure-slither",)),
    Step("assure-proofs", "halmos proofs", proofs, needs=("assure-coverage",)),
    Step("assure-tests", "tests, compiled", tests, needs=("assure-install",)),
    Step("assure-planted", "planted bugs", planted, needs=("assure-proofs", "assure-tests")),
    Step("assure-mutation", "mutation testing, a sample of 60", mutation, needs=("assure-planted",)),
    Step("assure-fuzz", "fuzz, 100,000 runs per property", fuzz, needs=("assure-mutation",)),
    Step("assure-campaign", "stateful campaign, 1,000 x 2,048 calls", campaign, needs=("assure-fuzz",)),
]


def main(names: list[str]) -> int:
    """Run all steps; or those named, one after another, since most use both cores themselves."""
    chosen = [step for step in STEPS if not names or step.name.removeprefix("assure-") in ("install", *names)]
    for step in chosen:
        if step.name != "assure-install":
            step.stamp.unlink(missing_ok=True)
    known = {step.name for step in chosen}
    steps = [replace(step, needs=tuple(name for name in step.needs if name in known)) for step in chosen]
    try:
        run_steps(steps, workers=1 if names else 2)
    except StepFailed as error:
        print(f"Assurance failed. {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
