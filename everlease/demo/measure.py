"""The report's figures out of what was recorded. Pure; times are unix seconds, durations seconds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from everlease.demo.evidence import Evidence, Record
from everlease.demo.steps import Step, redone


@dataclass(frozen=True, slots=True)
class Incident:
    """What was done to the host that held ``fence``, and when; the job went on under ``next_fence``."""

    cause: str
    at: float
    fence: int
    next_fence: int


def recovery(incident: Incident, found: Evidence, steps: Sequence[Step], names: Mapping[str, str]) -> dict[str, Any]:
    """One entry of ``recoveries``.

    ``downtime_s``: from the last step on the old host to the first on the new one. ``lost_work_s``: how long the old
    host had worked on steps that the new one did again.
    """
    old, new = found.award(incident.fence), found.award(incident.next_fence)
    assert old is not None
    assert new is not None
    before = [step for step in steps if step.fence == incident.fence]
    after = [step for step in steps if step.fence == incident.next_fence]
    noticed = found.event("job.lost", fence=incident.fence) or found.event("job.migrate_requested")
    auction = next((item for item in found.auctions if item["id"] == new["auction_id"]), None)
    return {
        "cause": incident.cause,
        "from_node": names[old["node"]],
        "to_node": names[new["node"]],
        "epoch": new["epoch"],
        "detect_s": _span(incident.at, noticed["at"] if noticed else None),
        "auction_s": _span(auction["opened_at"], auction["closed_at"]) if auction else None,
        "prepare_s": _span(auction["closed_at"] if auction else new["awarded_at"], new["prepared_at"]),
        "restore_s": _span(new["start_sent_at"], new["started_at"]),
        "downtime_s": _span(before[-1].at, after[0].at) if before and after else None,
        "lost_work_s": lost_work(before, after),
        "steps_redone": redone([*before, *after]),
    }


def lost_work(before: Sequence[Step], after: Sequence[Step]) -> float | None:
    """Seconds that the old host spent on steps the new one repeated."""
    if not before or not after:
        return None
    first = min(step.number for step in after)
    repeated = [step for step in before if step.number >= first]
    kept = [step for step in before if step.number < first]
    if not repeated:
        return 0.0
    return _span(kept[-1].at if kept else repeated[0].at, repeated[-1].at)


def checkpoints(found: Evidence) -> list[dict[str, Any]]:
    """The report's ``checkpoints``."""
    names = ("seq", "epoch", "mode", "logical_bytes", "new_bytes", "pause_s", "total_s")
    return [{name: row[name] for name in names} for row in found.checkpoints]


def auctions(found: Evidence) -> list[dict[str, Any]]:
    """Each auction: what for, how many were asked, who couldn't take the job and why."""
    return [
        {"plan": row["plan"], "asked": len(row["asked"]), "outcome": row["outcome"], "unfit": row["unfit"]}
        for row in found.auctions
    ]


def zombies(found: Evidence) -> dict[str, Any]:
    """Refusals by kind, and how many acts under a stale fence were accepted all the same (there must be none)."""
    refused: dict[str, int] = {}
    for row in found.refusals:
        refused[row["kind"]] = refused.get(row["kind"], 0) + row["refused"]
    ended = {award["fence"]: award["ended_at"] for award in found.awards}
    late = [
        row
        for row in found.checkpoints
        if ended.get(row["fence"]) is not None and row["committed_at"] > ended[row["fence"]]
    ]
    return {"refused": refused, "accepted": len(late)}


def slashes(found: Evidence, names: Mapping[str, str]) -> list[dict[str, Any]]:
    """The report's ``slashes``: who lost how much stake, and who got it (base units)."""
    wanted = ("answered", "slashed", "to_job", "to_caller", "to_insurance", "at")
    return [
        {"node": names.get(row["node"], row["node"]), **{name: row[name] for name in wanted}} for row in found.slashes
    ]


def leases(found: Evidence, names: Mapping[str, str]) -> list[dict[str, Any]]:
    """Each lease: host, state, what was earned and paid (base units)."""
    wanted = ("epoch", "state", "rate", "earned", "paid", "fee", "slashed", "bond", "collateral")
    return [
        {"node": names.get(row["node"], row["node"]), **{name: row[name] for name in wanted}} for row in found.leases
    ]


def phases(award: Record, until: float) -> list[tuple[str, float, float]]:
    """The stretches of a tenure for a Gantt chart: (preparing | restoring | running, from, to)."""
    ended = award["ended_at"] or until
    started = award["started_at"]
    sent = award["start_sent_at"]
    marks = [
        ("preparing", award["awarded_at"], sent or ended),
        ("restoring", sent, started or ended),
        ("running", started, ended),
    ]
    return [(name, begin, max(end, begin)) for name, begin, end in marks if begin is not None]


def money(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, int]:
    """Change of each party's total, base units."""
    return {
        name: after[name]["total"] - before[name]["total"]
        for name in before
        if isinstance(before[name], Mapping) and "total" in before[name]
    }


def _span(begin: float | None, end: float | None) -> float | None:
    return None if begin is None or end is None else round(max(end - begin, 0.0), 3)
