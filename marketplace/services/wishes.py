"""What tenants ask of a running job: recorded as a wish, done by recovery's planner."""

from everlease.db import Tx, jobs
from everlease.db.models.jobs import JobRow
from everlease.db.outbox import emit
from everlease.domain import job as machine
from everlease.domain.job import JobEvent, JobState
from marketplace.problems import ProblemError

_EVENTS = {
    "migrate": JobEvent.MIGRATE_REQUESTED,
    "hibernate": JobEvent.HIBERNATE_REQUESTED,
    "resume": JobEvent.RESUME_REQUESTED,
    "cancel": JobEvent.CANCEL_REQUESTED,
}
WISHES = ("checkpoint", *_EVENTS)
_REACHED = {
    "migrate": (JobState.MIGRATING,),
    "hibernate": (JobState.HIBERNATING, JobState.HIBERNATED),
    "resume": (),
    "cancel": (JobState.CANCELLING, JobState.CANCELLED),
    "checkpoint": (),
}
"""States in which a wish is under way or done already, so that asking again changes nothing."""


def record_wish(tx: Tx, job_id: str, tenant: str, wish: str, reason: str) -> JobRow:
    """Note the wish and tell recovery; raises UnknownJob, or ProblemError (409) where it makes no sense now."""
    row = jobs.lock(tx, job_id)
    if row.tenant != tenant:
        raise jobs.UnknownJob(job_id)
    state = JobState(row.state)
    if row.wish == wish or state in _REACHED[wish]:
        return row
    if not _makes_sense(state, wish):
        raise ProblemError(409, "wrong-state", f"a job that is {state} can't be asked to {wish}{_hint(state)}")
    if row.wish is not None and wish != "cancel":
        raise ProblemError(409, "wish-pending", f"the job is already asked to {row.wish}: wait for it, or cancel")
    place_wish(tx, row, wish, "tenant", reason)
    return row


def place_wish(tx: Tx, row: JobRow, wish: str, by: str, reason: str) -> None:
    """Write a wish into a locked row and tell recovery; an older wish is replaced."""
    row.wish, row.wish_detail = wish, {"by": by, "reason": reason}
    jobs.record(tx, row.id, "job.wished", {"wish": wish, "by": by, "reason": reason})
    emit(tx, "job.wished", {"job_id": row.id})


def _makes_sense(state: JobState, wish: str) -> bool:
    if wish == "checkpoint":
        return state is JobState.RUNNING
    return machine.allows(state, _EVENTS[wish])


def _hint(state: JobState) -> str:
    if state is JobState.EXHAUSTED:
        return ": top its escrow up and it goes on by itself"
    if state in machine.ENDED:
        return ": it has ended"
    return ""
