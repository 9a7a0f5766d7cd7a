"""Proof from outside: what every copy of a job printed, on one clock, and compared with the quiet reference."""

import itertools
import json
import re
import time
from dataclasses import dataclass, field

from hosts.guest import Guest
from hosts.payload import Step, parse

_SAMPLES = 5
LOST_STEPS = 480
"""The most steps that a copy may do again: the job's 120 s of lost work at half a second a step, and as many for a
checkpoint that an emulated host was at."""


@dataclass(frozen=True, slots=True)
class ClockMapping:
    """A guest's boot clock against the bench's: ``offset`` seconds to add, known to within ``error`` seconds."""

    offset: float
    error: float


def map_clock(guest: Guest) -> ClockMapping:
    """Ask a guest for its uptime a few times and take the quickest answer (as NTP does, RFC 5905 section 10)."""
    best = ClockMapping(0.0, 1e9)
    for _ in range(_SAMPLES):
        before = time.monotonic()
        uptime = float(guest.must("cat /proc/uptime").split()[0])
        after = time.monotonic()
        error = (after - before) / 2 + 0.01
        if error < best.error:
            best = ClockMapping((before + after) / 2 - uptime, error)
    return best


@dataclass(frozen=True, slots=True)
class Run:
    """What one container printed on one guest, on the bench's clock (seconds); ``error`` of that clock included."""

    guest: str
    container: str
    first: float
    last: float
    error: float
    steps: tuple[Step, ...]


@dataclass
class Witness:
    """Collects runs that began after ``since`` on the bench's clock. Ask it before a guest's power is cut, and at the
    end: each boot has a clock of its own.
    """

    runs: dict[str, Run] = field(default_factory=dict)
    since: float = field(default=0.0, kw_only=True)
    _clocks: dict[str, list[ClockMapping]] = field(default_factory=dict)

    def look(self, guest: Guest) -> None:
        """Map the guest's clock once more and read every container's log that it kept. Raises GuestError."""
        boot = guest.must("cat /proc/sys/kernel/random/boot_id").strip()
        self._clocks.setdefault(boot, []).append(map_clock(guest))
        for (seen_in, container), steps in _logs(guest).items():
            clocks = self._clocks.get(seen_in)
            if clocks is None:
                continue  # of a boot before this scenario
            clock = min(clocks, key=lambda item: item.error)
            drift = max(item.offset for item in clocks) - min(item.offset for item in clocks)
            first, last = steps[0].boot + clock.offset, steps[-1].boot + clock.offset
            if first + clock.error + drift < self.since:
                continue  # another job's, of a scenario before
            self.runs[container] = Run(guest.name, container, first, last, clock.error + drift, tuple(steps))

    def overlaps(self) -> list[str]:
        """Pairs of copies that ran at the same time beyond what the clocks' error explains."""
        ordered = sorted(self.runs.values(), key=lambda run: run.first)
        found = []
        for one, other in itertools.combinations(ordered, 2):
            allowed = one.error + other.error
            if one.last > other.first + allowed:
                found.append(
                    f"{one.container[:8]} on {one.guest} ran {one.last - other.first:.2f} s into "
                    f"{other.container[:8]} on {other.guest} (clocks: ±{allowed:.2f} s)"
                )
        return found

    def begun_anew(self) -> list[str]:
        """Copies that were started instead of restored, or that began before the checkpoint that they should have gone
        on from. A checkpoint may be older than the first step.
        """
        found = []
        for before, after in itertools.pairwise(sorted(self.runs.values(), key=lambda run: run.first)):
            first, reached = after.steps[0], before.steps[-1].number
            if not first.restored or reached - first.number + 1 > LOST_STEPS:
                how = "went on" if first.restored else "was started"
                found.append(
                    f"{after.container[:8]} on {after.guest} {how} at step {first.number}, after step {reached}"
                )
        return found

    def wrong(self, reference: dict[int, str]) -> list[str]:
        """Steps that differ from the quiet run's."""
        return [
            f"step {step.number} on {run.guest} is {step.hash}, not {reference.get(step.number)}"
            for run in self.runs.values()
            for step in run.steps
            if reference.get(step.number) != step.hash
        ]


def _logs(guest: Guest) -> dict[tuple[str, str], list[Step]]:
    """(boot id, container id) → steps, from the copies that outlive the containers; only what has steps."""
    text = guest.must('cd /var/lib/bench && for f in */*-json.log; do echo "== $f"; cat "$f"; done 2>/dev/null; true')
    found: dict[tuple[str, str], list[Step]] = {}
    place = ("", "")
    for line in text.splitlines():
        head = re.match(r"^== ([0-9a-f-]{36})/([0-9a-f]{64})-json.log$", line)
        if head:
            place = (head[1], head[2])
            continue
        try:
            step = parse(json.loads(line)["log"])
        except (ValueError, KeyError, TypeError):
            continue  # a power cut leaves half a line, or zeros
        if step is not None and place[0]:
            found.setdefault(place, []).append(step)
    return found
