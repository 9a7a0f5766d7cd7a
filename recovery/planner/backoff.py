"""When a job is not put to auction for now: its last leases came to nothing, and another would cost its tenant more."""

from dataclasses import dataclass
from functools import partial
from itertools import takewhile

from everlease.domain.job import WAITS_FOR_RESUME
from everlease.domain.snapshot import Award
from everlease.domain.terms import bearable
from recovery.planner.draft import Draft
from recovery.planner.history import since_resumed
from recovery.planner.hosts import UNSENT, UNSTORED

_WHY = {
    UNSENT: "the job could not be handed to hosts of several providers in a row",
    UNSTORED: "its outputs could not be stored at several providers in a row, the store may be away",
}
"""What is no single provider's doing where several have it one after the other."""


@dataclass(frozen=True, slots=True)
class Hold:
    """Why the job waits; until when (unix seconds), or None where it waits for its tenant."""

    reason: str
    until: float | None


def held_back(draft: Draft) -> Hold | None:
    """Why no bids are asked for now, if so."""
    bound = too_many_unserved(draft)
    if bound:
        return Hold(f"{WAITS_FOR_RESUME}: {bound}", None)
    awards = since_resumed(draft.snapshot)
    for outcome, why in _WHY.items():
        row = [*takewhile(partial(_ended_as, outcome), reversed(awards))]
        if len({award.provider for award in row}) < 2:
            continue
        until = (row[0].ended_at or draft.now) + draft.policy.fault_wait_s(len(row) - 1)
        if draft.now < until:
            return Hold(f"{why}: it is tried again in {until - draft.now:.0f} s", until)
    return None


def _ended_as(outcome: str, award: Award) -> bool:
    return award.outcome == outcome


def too_many_unserved(draft: Draft) -> str:
    """Why not even one more lease may be opened that might be served by nobody; empty where it may."""
    order, unserved, bonds = draft.snapshot.job.order, draft.snapshot.unserved, draft.snapshot.bonds_given
    # One bond is left out: a single host that could not prepare the job would stop one with a small deposit.
    spent = unserved * order.epoch_fee + max(bonds - 1, 0) * draft.policy.bond
    if bearable(spent + order.epoch_fee, order.deposit):
        return ""
    cost = "their fees and bonds" if bonds else "their fees"
    return f"{unserved} leases came to nothing, {cost} cost up to 5 % of the deposit"
