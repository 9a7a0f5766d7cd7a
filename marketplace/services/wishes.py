"""What tenants ask of a job: recorded as a wish, done by recovery's planner."""

from dataclasses import dataclass

from everlease.db import Tx, checkpoints, jobs, queries
from everlease.db.models.jobs import CheckpointRow, JobRow
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


@dataclass(frozen=True, slots=True)
class Begin:
    """From where a job is to be resumed: ``seq`` is what the tenant named, ``manifest`` what that was when the store
    was asked for its blocks, ``missing`` how many of them the store lacks, and ``image_gone`` whether the job's image
    is not whole there.
    """

    seq: int | None = None
    manifest: str | None = None
    missing: int = 0
    image_gone: bool = False


def beginning(tx: Tx, row: JobRow, seq: int | None) -> CheckpointRow | None:
    """Where ``resume`` begins: at the checkpoint of this number, else at the head, or where that holds outputs alone at
    the newest before it. None: at the beginning, as there is none or ``seq`` is 0. Raises ProblemError (409).
    """
    if seq == 0 or (seq is None and row.head_manifest is None):
        return None
    head = checkpoints.by_manifest(tx, row.head_manifest) if row.head_manifest else None
    if seq is None and head is not None:
        newest = checkpoints.newest_program(tx, row.id) if head.final else head
        if newest is None:
            return None
        seq = newest.seq
    found = checkpoints.numbered(tx, row.id, seq) if seq is not None else None
    if found is None:
        raise ProblemError(
            409, "no-checkpoint", f"job {row.name} has no checkpoint {seq}: 'job checkpoints' lists them"
        )
    if found.condemned_at is not None:
        raise ProblemError(409, "checkpoint-gone", gone(row.name, found.seq))
    if checkpoints.restorable(tx, row.id, found.seq) is None:
        why = f"can't be restored ({found.damaged})" if found.damaged else "holds the job's outputs, not its program"
        raise ProblemError(409, "not-restorable", f"checkpoint {found.seq} of job {row.name} {why}: name another")
    return found


def gone(name: str, seq: int | None) -> str:
    """That a checkpoint was kept for its time and is there no more."""
    return f"checkpoint {seq} of job {name} is not kept any more: 'job checkpoints' lists those that are"


def record_wish(tx: Tx, job_id: str, tenant: str, wish: str, reason: str, begin: Begin | None = None) -> JobRow:
    """Note the wish and tell recovery; raises UnknownJob, or ProblemError (409) where it makes no sense now.

    ``begin``: for ``resume``. The checkpoint is looked at again under the job's lock, and stays from then on.
    """
    row = jobs.lock(tx, job_id)
    if row.tenant != tenant:
        raise jobs.UnknownJob(job_id)
    state = JobState(row.state)
    other = wish == "resume" and begin is not None and begin.seq not in (None, row.wish_detail.get("seq"))
    if (row.wish == wish and not other) or state in _REACHED[wish]:
        return row
    if not _makes_sense(state, wish):
        raise ProblemError(409, "wrong-state", f"a job that is {state} can't be asked to {wish}{_hint(state)}")
    if row.wish is not None and wish != "cancel":
        raise ProblemError(409, "wish-pending", f"the job is already asked to {row.wish}: wait for it, or cancel")
    seq = _resumed(tx, row, begin or Begin()) if wish == "resume" else None
    place_wish(tx, row, wish, "tenant", reason, seq)
    return row


def _resumed(tx: Tx, row: JobRow, begin: Begin) -> int:
    """The number of the checkpoint to begin from, 0 for the job's beginning. Raises ProblemError (409)."""
    escrow = queries.escrow_of(tx, row.id)
    if escrow is None and row.state in machine.ENDED:
        raise ProblemError(409, "no-deposit", f"the deposit of job {row.name} was never paid: launch it anew")
    if escrow is not None and escrow.cancelled:
        told = "was cancelled on chain, so nothing can run for it again: 'job outputs' downloads its checkpoints"
        raise ProblemError(409, "cancelled-on-chain", f"job {row.name} {told}")
    found = beginning(tx, row, begin.seq)
    if begin.image_gone:
        raise ProblemError(409, "image-gone", f"the image of job {row.name} is not kept any more: launch it anew")
    if (found.manifest if found is not None else None) != begin.manifest:
        raise ProblemError(409, "head-moved", f"job {row.name} has another checkpoint since: ask again")
    if found is None:
        return 0
    if begin.missing:
        told = f"lacks {begin.missing} of its blocks in the store: name another"
        raise ProblemError(409, "not-restorable", f"checkpoint {found.seq} of job {row.name} {told}")
    return found.seq


def place_wish(tx: Tx, row: JobRow, wish: str, by: str, reason: str, seq: int | None = None) -> None:
    """Write a wish into a locked row and tell recovery; an older wish is replaced."""
    asked = {"by": by, "reason": reason} | ({} if seq is None else {"seq": seq})
    row.wish, row.wish_detail = wish, asked
    jobs.record(tx, row.id, "job.wished", {"wish": wish, **asked})
    emit(tx, "job.wished", {"job_id": row.id})


def _makes_sense(state: JobState, wish: str) -> bool:
    if wish == "checkpoint":
        return state is JobState.RUNNING
    return machine.allows(state, _EVENTS[wish])


def _hint(state: JobState) -> str:
    if state is JobState.EXHAUSTED:
        return ": its reason tells what its order lacks; once 'job top-up' or 'job extend' gave it that, it goes on"
    if state is JobState.CANCELLED:
        return ": it has ended, and 'job outputs' downloads what is kept of it"
    if state is JobState.PARKED:
        return ": resume or cancel it"
    if state in machine.ENDED:
        return ": it has ended, and 'job resume' lets it go on"
    return ""
