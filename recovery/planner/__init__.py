"""The one decision function of a job: ``plan(snapshot, now, policy) -> moves``. Pure; equal input, equal output."""

from collections.abc import Callable

from everlease.domain.job import JobEvent, JobState
from everlease.domain.snapshot import Snapshot
from recovery.moves import Move, SetDue
from recovery.planner.bidding import auctioning
from recovery.planner.draft import Draft
from recovery.planner.ending import cancelling, wishes
from recovery.planner.hosts import said_goodbye
from recovery.planner.leases import settle_left_over
from recovery.planner.moving import hibernating, migrating
from recovery.planner.placing import allocating, preparing, restoring
from recovery.planner.policy import Policy
from recovery.planner.running import running
from recovery.planner.verdict import judged
from recovery.planner.waiting import exhausted, parked, pending, waiting_capacity

__all__ = ["Policy", "plan"]

_SOONEST_S = 0.25
"""A due time that passed without a move is not asked for again sooner than this."""


def plan(snapshot: Snapshot, now: float, policy: Policy) -> list[Move]:
    """What to do about a job now. Empty where nothing is to be done; called again until it is."""
    draft = Draft(snapshot, now, policy)
    if not said_goodbye(draft) and not wishes(draft):
        phase = _PHASES.get(snapshot.job.state)
        if phase is not None:
            phase(draft)
        if not draft.moves:
            settle_left_over(draft)
    if not draft.moves:
        _set_due(draft)
    return draft.moves


def _recovering(draft: Draft) -> None:
    draft.abandon_auction("the host was lost")
    if not judged(draft):
        draft.event(JobEvent.REAUCTIONED)


def _set_due(draft: Draft) -> None:
    before = draft.snapshot.job.due_at
    if draft.due is None:
        if before is not None:
            draft.add(SetDue(None))
        return
    at = max(draft.due, draft.now + _SOONEST_S)
    if before is None or before <= draft.now or abs(at - before) > 1e-3:
        draft.add(SetDue(at))


_PHASES: dict[JobState, Callable[[Draft], None]] = {
    JobState.PENDING: pending,
    JobState.AUCTIONING: auctioning,
    JobState.WAITING_CAPACITY: waiting_capacity,
    JobState.ALLOCATING: allocating,
    JobState.PREPARING: preparing,
    JobState.RESTORING: restoring,
    JobState.RUNNING: running,
    JobState.RECOVERING: _recovering,
    JobState.MIGRATING: migrating,
    JobState.HIBERNATING: hibernating,
    JobState.CANCELLING: cancelling,
    JobState.EXHAUSTED: exhausted,
    JobState.PARKED: parked,
}
