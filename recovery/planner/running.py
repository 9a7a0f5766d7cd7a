"""RUNNING: exits, wishes, money, and the lease under it."""

from everlease.domain.job import JobEvent
from everlease.domain.jobspec import CheckpointMode
from everlease.domain.snapshot import Award, Command, Snapshot
from recovery.moves import (
    ClearWish,
    CountRestart,
    IssueCommand,
    NoteAward,
    Record,
    SetExitCode,
)
from recovery.planner.backoff import too_many_unserved
from recovery.planner.bidding import out_of_terms
from recovery.planner.draft import Draft
from recovery.planner.funds import remaining_s
from recovery.planner.hosts import UNSTORED, host_failed, leave_idle, outputs_stored
from recovery.planner.leases import watch_lease
from recovery.planner.pay import held
from recovery.planner.verdict import MOVED, UNDUMPABLE


def running(draft: Draft) -> None:
    """The workload runs; the first thing that asks for a move decides."""
    award = draft.snapshot.award
    if award is None:
        draft.event(JobEvent.VOIDED, "the award is gone")
        return
    deciding = (watch_lease, exited, _undumpable, _exhausting, leave_idle)
    if not any(decides(draft, award) for decides in deciding):
        _wishes(draft, award)


def exited(draft: Draft, award: Award) -> bool:
    """Act on the container's exit: success, a restart on the spot, or another node. True where there is one."""
    if award.exit_code is None:
        return False
    if award.host_fault:
        host_failed(draft, award)
        return True
    if award.exit_code == 0:
        _succeed(draft, award)
        return True
    restart = draft.snapshot.command(f"restart/{award.fence}/{award.restarts + 1}")
    if restart is not None and restart.ok is None:
        return True
    if restart is not None and restart.ok:
        draft.add(CountRestart(award.fence))
        draft.event(JobEvent.RESTARTED, f"exit code {award.exit_code}", fence=award.fence, restart=award.restarts + 1)
    elif restart is None and award.restarts < draft.policy.max_restarts:
        step = f"restart/{award.fence}/{award.restarts + 1}"
        payload = {"checkpoint": draft.snapshot.job.head_manifest}
        draft.add(
            SetExitCode(award.exit_code),
            IssueCommand(award.node, award.fence, step, "restart", payload, draft.policy.start_timeout_s),
        )
    else:
        draft.add(SetExitCode(award.exit_code))
        draft.end(award, MOVED, recovery=True)
        draft.event(JobEvent.MOVED, f"the job ended with exit code {award.exit_code} on {award.node}")
    return True


def hold(draft: Draft, award: Award, purpose: str) -> Command | None:
    """The answer to a last checkpoint that leaves the workload frozen; asks for it first. None while it is out."""
    step = f"hold/{purpose}/{award.fence}"
    answer = draft.snapshot.command(step)
    if answer is None:
        timeout = draft.policy.checkpoint_timeout_s
        draft.add(IssueCommand(award.node, award.fence, step, "checkpoint", {"hold": True}, timeout))
        return None
    return None if answer.ok is None else answer


def holding(draft: Draft, award: Award, purpose: str) -> bool:
    """Whether the last checkpoint was asked for already."""
    return draft.snapshot.command(f"hold/{purpose}/{award.fence}") is not None


def thaw(draft: Draft, award: Award, purpose: str) -> None:
    """Let the workload go on where it is frozen."""
    step = f"thaw/{purpose}/{award.fence}"
    payload = {"new_fence": award.fence}
    draft.add(
        NoteAward(award.fence, {"held_at": None}),
        IssueCommand(award.node, award.fence, step, "thaw", payload, draft.policy.stop_timeout_s),
    )


def unstored(draft: Draft, award: Award) -> str:
    """Why the outputs of a job that exited with 0 will not come; empty where they are in, or still may."""
    if award.exit_code != 0 or award.host_fault or outputs_stored(draft.snapshot, award):
        return ""
    until = (award.exited_at or draft.now) + draft.policy.final_timeout_s
    if not award.final_commit_failed and draft.now < until:
        return ""
    why = award.final_commit_failed or "the node did not commit them"
    return f"the outputs could not be stored: {why}"


def _succeed(draft: Draft, award: Award) -> None:
    """Exit code 0: SUCCEEDED once the outputs are committed as a final checkpoint. Until they are, it was for nothing:
    the job goes on elsewhere from its last checkpoint.
    """
    why = unstored(draft, award)
    if why:
        draft.end(award, UNSTORED, recovery=True)
        draft.event(JobEvent.MOVED, why)
    elif outputs_stored(draft.snapshot, award):
        draft.add(SetExitCode(0))
        draft.end(award, "finished")
        draft.event(JobEvent.EXITED_OK)
    else:
        draft.wait_until((award.exited_at or draft.now) + draft.policy.final_timeout_s)


def _undumpable(draft: Draft, award: Award) -> bool:
    """Its host can't checkpoint a job that insists on that, or that others did checkpoint: another is tried. A job that
    may fall back to files stays where no process would be given up for them.
    """
    policy, snapshot = draft.snapshot.job.spec.checkpoint, draft.snapshot
    # Outputs are of files always and say nothing of the program's own checkpoints.
    kept = (p for p in reversed(snapshot.checkpoints) if not p.final and p.seq <= snapshot.job.head_seq)
    program = next(kept, snapshot.head)
    no_processes = program is None or (program.mode == "files" and not program.final)
    falls_back = policy.fall_back_to_files and no_processes
    allowed = policy.mode in (CheckpointMode.FILES, CheckpointMode.NONE) or falls_back
    if not award.undumpable or award.mode == "files" or allowed:
        return False
    draft.end(award, UNDUMPABLE, recovery=True)
    draft.event(JobEvent.MOVED, f"{award.node} can't checkpoint the job: {award.undumpable}")
    return True


def _exhausting(draft: Draft, award: Award) -> bool:
    """Money or the order's deadline runs out: a last checkpoint, then EXHAUSTED."""
    snapshot, margin = draft.snapshot, draft.policy.margin_s
    left = min(remaining_s(snapshot, award), _deadline(snapshot) - int(draft.now))
    asked = any(c.step == f"hold/funds/{award.fence}" for c in snapshot.commands)
    if left > margin and not asked:
        if left < 2**40:
            draft.wait_until(draft.now + min(left - margin, 3600))
        return False
    answer = hold(draft, award, "funds")
    if answer is None:
        return True
    if not held(snapshot, award, answer):
        draft.add(Record("job.hold_failed", {"fence": award.fence, "error": answer.error}))
    late = _deadline(snapshot) - int(draft.now) <= margin
    draft.end(award, "exhausted")
    draft.event(
        JobEvent.FUNDS_OUT,
        (out_of_terms(draft) if late else None) or "the escrow can't pay another minimum runtime: top it up",
    )
    return True


def _deadline(snapshot: Snapshot) -> int:
    return snapshot.escrow.deadline if snapshot.escrow is not None else 2**62


def _wishes(draft: Draft, award: Award) -> None:
    snapshot = draft.snapshot
    wish = snapshot.job.wish
    if wish == "checkpoint":
        number = award.asked_checkpoints + 1
        step = f"checkpoint/{award.fence}/{number}"
        timeout = draft.policy.checkpoint_timeout_s
        draft.add(
            ClearWish(),
            NoteAward(award.fence, facts={"asked_checkpoints": number}),
            IssueCommand(award.node, award.fence, step, "checkpoint", {"hold": False}, timeout),
        )
    elif wish == "hibernate":
        draft.add(ClearWish(), NoteAward(award.fence, facts={"hibernations": award.hibernations + 1}))
        draft.event(JobEvent.HIBERNATE_REQUESTED)
    elif wish == "migrate":
        draft.add(ClearWish())
        why = no_further_lease(draft)
        if why:
            draft.add(Record("job.migrate_refused", {"fence": award.fence, "why": why}))
        else:
            draft.event(JobEvent.MIGRATE_REQUESTED)
    elif _must_leave(snapshot, award):
        again = _last_migration(snapshot) + draft.policy.drain_retry_s
        if no_further_lease(draft):
            draft.wait_until(draft.now + draft.policy.drain_retry_s)
        elif draft.now >= again:
            draft.event(JobEvent.MIGRATE_REQUESTED, "the provider drains this node")
        else:
            draft.wait_until(again)


def no_further_lease(draft: Draft) -> str:
    """Why the job can't have another lease after its current one; empty where it can."""
    return out_of_terms(draft) or too_many_unserved(draft)


def _must_leave(snapshot: Snapshot, award: Award) -> bool:
    lease = snapshot.lease(award.lease_id)
    return award.node in snapshot.draining_nodes or (lease is not None and lease.noticed)


def _last_migration(snapshot: Snapshot) -> float:
    tries = [a.closed_at for a in snapshot.auctions if a.plan == "migration" and a.closed_at is not None]
    return tries[-1] if tries else 0.0
