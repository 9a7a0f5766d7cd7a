"""Steps of the training loop, read from what the job printed: "STEP LOSS_HEX LOSS" a line."""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

_LINE = re.compile(r"^(\d+) (-?0x[0-9a-f.]+p[+-]\d+) ")


@dataclass(frozen=True, slots=True)
class Step:
    """One step as a host printed it: when (unix seconds), under which fence, its number and its loss."""

    at: float
    fence: int
    number: int
    loss: float


def parse(text: str) -> tuple[int, float] | None:
    """Step and loss of a line, or None for another line."""
    found = _LINE.match(text)
    return (int(found[1]), float.fromhex(found[2])) if found else None


def from_pieces(pieces: Iterable[dict[str, Any]]) -> list[Step]:
    """Steps in the log pieces that the marketplace kept (`fence`, `stream`, `offset`, `text`, `at`), by time.

    Lines that are split between pieces are joined; a step has the time of the piece that completed its line.
    """
    open_lines: dict[int, str] = {}
    found: list[Step] = []
    for piece in sorted(pieces, key=lambda item: (item["fence"], item["offset"])):
        if piece["stream"] != "stdout":
            continue
        *lines, rest = (open_lines.pop(piece["fence"], "") + piece["text"]).split("\n")
        open_lines[piece["fence"]] = rest
        for line in lines:
            parsed = parse(line)
            if parsed is not None:
                found.append(Step(piece["at"], piece["fence"], *parsed))
    return sorted(found, key=lambda step: (step.at, step.number))


def from_docker(folder: Path, fence: int) -> list[Step]:
    """Steps in the json-file logs of a Docker data folder's newest container, with Docker's own times.

    A host that is dead or cut off still has what it printed last, which the marketplace never got.
    """
    logs = sorted(folder.glob("containers/*/*-json.log"), key=lambda path: path.stat().st_mtime)
    found: list[Step] = []
    for line in logs[-1].read_text(encoding="utf-8", errors="replace").splitlines() if logs else []:
        try:
            record = json.loads(line)
            parsed = parse(record["log"])
            at = datetime.fromisoformat(re.sub(r"(\.\d{6})\d*Z$", r"\1+00:00", record["time"])).timestamp()
        except (ValueError, KeyError, TypeError):
            continue  # a host that was killed may leave half a line
        if parsed is not None:
            found.append(Step(at, fence, *parsed))
    return found


def merge(kept: list[Step], from_hosts: dict[int, list[Step]]) -> list[Step]:
    """One list by time: for a fence whose host's own log was read, that one; else what the marketplace kept."""
    chosen = [step for step in kept if step.fence not in from_hosts]
    for steps in from_hosts.values():
        chosen += steps
    return sorted(chosen, key=lambda step: (step.at, step.number))


def redone(steps: Iterable[Step]) -> int:
    """How many steps were executed more than once, each repetition counted."""
    seen: set[int] = set()
    again = 0
    for step in sorted(steps, key=lambda item: (item.fence, item.number)):
        again += step.number in seen
        seen.add(step.number)
    return again
