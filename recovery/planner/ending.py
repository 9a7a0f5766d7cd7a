"""CANCELLING, and wishes that end or change a job in any phase."""

from everlease.domain.job import ENDED, RESUMABLE, JobEvent, JobState, allows
from everlease.domain.snapshot import Award
from recovery.moves import BeginFrom, ClearWish, Record
from recovery.planner.draft import Draft
from recovery.planner.history import begin_anew
from recovery.planner.hosts import outputs_stored
from recovery.planner.running import exited, unstored

_NEVER = {
    "migrate": frozenset({JobState.PENDING, JobState.AUCTIONING, JobState.WAITING_CAPACITY, JobState.RECOVERING})
    | {JobState.HIBERNATED, JobState.HIBERNATING, JobState.MIGRATING, JobState.EXHAUSTED, JobState.PARKED},
    "hibernate": frozenset({JobState.PENDING, JobState.HIBERNATED, JobState.HIBERNATING, JobState.EXHAUSTED})
    | {JobState.PARKED},
    "resume": frozenset(JobState) - RESUMABLE - {JobState.HIBERNATING},
    "checkpoint": frozenset(JobState) - {JobState.RUNNING, JobState.ALLOCATING, JobState.PREPARING, JobState.RESTORING},
}
"""States in which a wish can't come true by waiting; it is dropped."""


def wishes(draft: Draft) -> bool:
    """Wishes that don't wait for the workload to run; True where one changed the plan."""
    job = draft.snapshot.job
    wish, state = job.wish, job.state
    if wish is None:
        return False
    ended = state in ENDED and wish != "resume"
    if ended or state is JobState.CANCELLING or state in _NEVER.get(wish, frozenset()):
        draft.add(ClearWish())
        return True
    event = {"cancel": JobEvent.CANCEL_REQUESTED, "resume": JobEvent.RESUME_REQUESTED}.get(wish)
    if wish == "hibernate" and state is JobState.WAITING_CAPACITY:
        event = JobEvent.HIBERNATE_REQUESTED
    if event is None or not allows(state, event):
        return False
    draft.add(ClearWish())
    if wish == "resume" and draft.snapshot.resume_gone:
        draft.add(Record("job.resume_refused", {"seq": draft.snapshot.resume_seq, "why": "it is no longer kept"}))
        return True
    draft.abandon_auction(wish)
    if wish == "resume":
        begin_anew(draft)
        draft.add(BeginFrom(draft.snapshot.resume_seq))
    draft.event(event)
    return True


def cancelling(draft: Draft) -> None:
    """CANCELLING: stop the container, sign what was served; the lease is closed as a left-over."""
    award = draft.snapshot.award
    if award is None:
        draft.event(JobEvent.STOPPED)
        return
    if _outputs_come(draft, award) and exited(draft, award):
        return
    answer = draft.snapshot.command(f"stop/{award.fence}")
    if answer is None:
        draft.stop(award, draft.policy.stop_grace_s)
    elif answer.ok is not None:
        draft.end(award, "cancelled")
        draft.event(JobEvent.STOPPED, answer.error)


def _outputs_come(draft: Draft, award: Award) -> bool:
    """Whether the job ended well before it could be stopped, and its outputs are in or waited for: not for long, its
    tenant has no use for them.
    """
    if award.exit_code != 0 or award.host_fault or unstored(draft, award):
        return False
    until = (award.exited_at or draft.now) + draft.policy.stop_timeout_s
    if draft.now < until:
        draft.wait_until(until)
    return draft.now < until or outputs_stored(draft.snapshot, award)
