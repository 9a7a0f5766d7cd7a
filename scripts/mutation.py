"""Mutation testing: slither-mutate's edits, one at a time, each against the unit tests.

Usage: python3 scripts/mutation.py [--sample N] [--seed S] [--minutes M]

A sample is drawn once for a seed; verdicts are kept in .build/assure/mutation.jsonl for as long as what they rest on is
the same (mutant_evidence.py), so a run that ends early is taken up by the next. Viable are the edits that compile, to
another bytecode; those with the same bytecode are one. At least 95 % must be caught, and each survivor must be in
mutation.triage.json with its reason (an equivalent program, or why no test is to tell it apart); else the status is 1.
"""

import argparse
import hashlib
import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

from assure import TOOLS_PATH
from mutant_copies import ROOT, WORKERS, Copies
from mutant_evidence import evidence
from steps import BUILD

FOLDER = BUILD / "assure"
MUTANTS, VERDICTS = FOLDER / "mutants.json", FOLDER / "mutation.jsonl"
TRIAGE = ROOT / "mutation.triage.json"
LEAST = 0.95

Mutant = dict[str, Any]


def name_of(mutant: Mutant) -> str:
    """Identity of an edit: its file, what is there, and what comes instead."""
    text = json.dumps([mutant["file"], mutant["start"], mutant["end"], mutant["old"], mutant["new"]])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def mutants() -> list[Mutant]:
    """All edits for the sources as they are."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    python = ROOT / ".venv-assure/bin/python"
    build = BUILD / "slither"
    env = {"PATH": TOOLS_PATH, "FOUNDRY_OUT": str(build / "out"), "FOUNDRY_CACHE_PATH": str(build / "cache")}
    argv = [str(python), "scripts/slither_mutants.py"]
    done = subprocess.run(argv, cwd=ROOT, env=os.environ | env, stdout=subprocess.PIPE, check=True)
    MUTANTS.write_bytes(done.stdout)
    found: list[Mutant] = json.loads(done.stdout)
    return found


def mutated(mutant: Mutant) -> str:
    """The file's text with the edit. Slither counts bytes."""
    raw: bytes = (ROOT / mutant["file"]).read_bytes()
    return (raw[: mutant["start"]] + str(mutant["new"]).encode() + raw[mutant["end"] :]).decode()


def known() -> dict[str, Mutant]:
    """Verdicts of earlier runs that still hold."""
    if not VERDICTS.exists():
        return {}
    rows = [json.loads(line) for line in VERDICTS.read_text(encoding="utf-8").splitlines()]
    return {row["id"]: row for row in rows if row["rests_on"] == rests_on(row)}


def rests_on(row: Mutant) -> str:
    """Digest of what the verdict rests on."""
    return evidence(row["kind"], row["suite"], row["by"].split(",")[0])


def main() -> int:
    """Judge the sample, as far as time allows, and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sample", type=int, default=0, help="so many edits at random; all by default")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=WORKERS)
    parser.add_argument("--minutes", type=float, default=1e9, help="begin no edit after so long")
    options = parser.parse_args()
    edits = mutants()
    chosen = random.Random(options.seed).sample(edits, min(options.sample or len(edits), len(edits)))
    before = known()
    open_ones = [mutant for mutant in chosen if name_of(mutant) not in before]
    end = time.monotonic() + options.minutes * 60
    if open_ones:
        judge_all(open_ones, end, options.workers)
    return report(len(edits), chosen, known())


def judge_all(open_ones: list[Mutant], end: float, workers: int) -> None:
    """Judge several at a time; each verdict is written as it comes."""
    copies = Copies(BUILD / "mutation", workers)

    def judge(mutant: Mutant) -> Mutant | None:
        if time.monotonic() > end:
            return None
        verdict = copies.judge(mutant["file"], mutated(mutant))
        kept = {"id": name_of(mutant), "kind": verdict.kind, "by": verdict.detail, "suite": verdict.suite}
        row = mutant | kept | {"code": verdict.code, "seconds": round(verdict.seconds, 1)}
        return row | {"rests_on": rests_on(row)}

    with ThreadPoolExecutor(max_workers=workers) as pool, VERDICTS.open("a", encoding="utf-8") as log:
        for future in as_completed([pool.submit(judge, mutant) for mutant in open_ones]):
            if (row := future.result()) is not None:
                log.write(json.dumps(row) + "\n")
                log.flush()
                print(
                    f"{row['kind']:10}{row['seconds']:6.1f} s  {row['operator']:5}{row['file']}:{row['line']}",
                    flush=True,
                )
    copies.close()


def report(total: int, chosen: list[Mutant], verdicts: dict[str, Mutant]) -> int:
    """Print the share of viable edits that were caught, and each survivor; 0 if both are in order."""
    judged = [verdicts[name_of(mutant)] for mutant in chosen if name_of(mutant) in verdicts]
    kinds = Counter(row["kind"] for row in judged)
    caught, survived = ({row["code"] for row in judged if row["kind"] == kind} for kind in ("caught", "unnoticed"))
    programs = len(caught) + len(survived)
    share = len(caught) / max(programs, 1)
    print(f"{total} edits, {len(chosen)} chosen, {len(judged)} judged: {kinds['invalid']} don't compile,")
    print(f"{kinds['equivalent']} change no bytecode, {kinds['caught'] + kinds['unnoticed']} are viable, which make")
    print(f"{programs} programs: {len(caught)} caught ({share:.1%}), {len(survived)} survived")
    reasons = {entry["id"]: entry["reason"] for entry in json.loads(TRIAGE.read_text(encoding="utf-8"))}
    unexplained = 0
    for row in judged:
        if row["kind"] == "unnoticed":
            unexplained += row["id"] not in reasons
            print(f"  {row['id']} {row['file']}:{row['line']} {row['old']!r} → {row['new']!r}: ", end="")
            print(reasons.get(row["id"], "NOT EXPLAINED"))
    return 0 if len(judged) == len(chosen) and share >= LEAST and not unexplained else 1


if __name__ == "__main__":
    sys.exit(main())
