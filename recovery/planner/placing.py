"""From an award to a running workload: prepare and open side by side, fencing time, start."""

from typing import Any

from everlease.domain.job import JobEvent, JobState
from everlease.domain.lease import LeaseState
from everlease.domain.snapshot import Award, ChainTx, Checkpoint, Command, Snapshot
from recovery.moves import EnqueueOpen, IssueCommand, NoteAward, Record, SignFinal
from recovery.planner.bidding import BID_SLACK_S, settle_with_open
from recovery.planner.draft import Draft
from recovery.planner.hosts import HOST_FAULT, LATE, NOT_OPENED, UNREADY, UNSENT
from recovery.planner.leases import fencing_time, left_over, may_try_again, void, watch_lease
from recovery.planner.pay import paid_in_full
from recovery.planner.settling import silent_from

OUTLIVED = "outlived"
"""The outcome of an award whose bid ends before its lease may be opened, whoever bids."""


def allocating(draft: Draft) -> None:
    """ALLOCATING: the winner prepares while ``open`` is on its way to the chain."""
    award = _current(draft)
    if award is None or _preparation_failed(draft, award):
        return
    lease = draft.snapshot.lease(award.lease_id)
    if lease is not None and lease.state is LeaseState.ACTIVE:
        draft.add(NoteAward(award.fence, {"opened_at": draft.now}))
        draft.event(JobEvent.OPENED, fence=award.fence, epoch=award.epoch, lease_id=award.lease_id)
        return
    txs = draft.snapshot.open_txs(award)
    may_wait = len(txs) < draft.policy.max_attempts
    if not txs or (may_wait and txs[-1].came_to_nothing and _too_early(txs[-1])):
        _open(draft, award, txs)
    elif txs[-1].came_to_nothing:
        draft.end(award, NOT_OPENED, final=False)
        draft.event(JobEvent.OPEN_FAILED, txs[-1].error or "open was not mined")


def preparing(draft: Draft) -> None:
    """PREPARING: the lease is open; start once the node is ready and no earlier host can be running the job."""
    award = _current(draft)
    if award is None or watch_lease(draft, award) or _preparation_failed(draft, award):
        return
    if award.start_sent_at is not None:
        _started(draft, award, JobEvent.PREPARE_FAILED, "prepare_failed")
        return
    if award.prepared_at is None or award.unopened_at is not None:
        return
    fenced = fencing_time(draft.snapshot, award, draft.policy.liveness)
    if draft.now < fenced:
        draft.wait_until(fenced)
        return
    draft.add(NoteAward(award.fence, {"start_sent_at": draft.now}), _start(draft, award, fenced))
    if award.restore_manifest is not None:
        draft.event(JobEvent.RESTORE_BEGAN, fence=award.fence, seq=award.restore_seq)
    else:
        draft.add(Record("job.start_sent", {"fence": award.fence}))


def restoring(draft: Draft) -> None:
    """RESTORING: the node brings the checkpoint to life."""
    award = _current(draft)
    if award is not None and not watch_lease(draft, award):
        _started(draft, award, JobEvent.RESTORE_FAILED, "restore_failed")


def prepare_payload(snapshot: Snapshot, restore_manifest: str | None) -> dict[str, Any]:
    """What a node must fetch: the spec, the image, and the checkpoint's sealed blocks. The gateway adds the token."""
    job = snapshot.job
    point = _checkpoint(snapshot, restore_manifest)
    return {
        "spec": dict(job.spec_json),
        "image_manifest": job.image_manifest,
        "image_archive_bytes": job.image_bytes,
        "checkpoint": restore_manifest,
        "block_cids": list(point.block_cids) if point is not None else [],
    }


def failure(answer: Command, outcome: str) -> str:
    """What a failed answer says of its node: it was late, it can't hold this checkpoint, or the step failed there.

    What the node itself calls worth another try says nothing about the job or its checkpoint.
    """
    if answer.expired:
        return LATE
    if answer.result.get("host_fault"):
        return HOST_FAULT
    if answer.result.get("unfit"):
        return "unfit"
    return UNREADY if answer.retryable else outcome


def _checkpoint(snapshot: Snapshot, manifest: str | None) -> Checkpoint | None:
    return next((point for point in snapshot.checkpoints if manifest and point.manifest == manifest), None)


def _current(draft: Draft) -> Award | None:
    """The award; a placed job without one (its row was ended by hand) is void."""
    award = draft.snapshot.award
    if award is None:
        draft.event(JobEvent.VOIDED, "the award is gone")
    return award


def _too_early(tx: ChainTx) -> bool:
    """The chain's clock is behind ours: the host before is not silent long enough by its last block."""
    return "NotSilent" in tx.error


def _open(draft: Draft, award: Award, attempts: tuple[ChainTx, ...]) -> None:
    """Journal ``open`` as soon as what must end first may end."""
    if not may_try_again(draft, attempts):
        return
    snapshot = draft.snapshot
    key = f"open/{snapshot.job.id}/{award.fence}/{len(attempts)}"
    lease = left_over(snapshot)
    how = settle_with_open(snapshot, draft.now)
    if lease is None or how == "":
        draft.add(EnqueueOpen(award.fence, key))
        return
    if how == "suspend" and draft.now < silent_from(snapshot, lease):
        if award.bid["deadline"] - BID_SLACK_S < silent_from(snapshot, lease):
            draft.end(award, OUTLIVED, final=False)
            draft.event(JobEvent.OPEN_FAILED, "the bid ends before the lease of the lost host may be suspended")
        else:
            draft.wait_until(silent_from(snapshot, lease))
        return
    old = snapshot.award_of(lease.lease_id)
    receipt = snapshot.receipts.get(lease.lease_id)
    if how == "close" and old is not None and (receipt is None or not receipt.final):
        draft.add(SignFinal(old.fence, paid_in_full(snapshot, old, old.outcome)))
    draft.add(EnqueueOpen(award.fence, key, lease.lease_id, how))


def _preparation_failed(draft: Draft, award: Award) -> bool:
    """Issue Prepare if it wasn't yet, and take note of its answer; True where it failed."""
    snapshot = draft.snapshot
    step = f"prepare/{award.fence}"
    answer = snapshot.command(step)
    if answer is None:
        payload = prepare_payload(snapshot, award.restore_manifest)
        payload |= {"lease_id": award.lease_id, "rate_per_hour": award.rate_per_hour}
        draft.add(IssueCommand(award.node, award.fence, step, "prepare", payload, draft.policy.prepare_timeout_s))
        return False
    if answer.ok is None or award.prepared_at is not None:
        return False
    if answer.ok:
        draft.add(
            NoteAward(award.fence, {"prepared_at": answer.finished_at}),
            Record("job.prepared", {"fence": award.fence, "node": award.node, **_timings(answer)}),
        )
        return False
    draft.end(award, failure(answer, "prepare_failed"), final=False)
    draft.event(JobEvent.PREPARE_FAILED, answer.error, fence=award.fence, node=award.node)
    return True


def _start(draft: Draft, award: Award, fenced: float) -> IssueCommand:
    snapshot = draft.snapshot
    payload = {
        "lease_id": award.lease_id,
        "epoch": award.epoch,
        "rate_per_hour": award.rate_per_hour,
        "spec": dict(snapshot.job.spec_json),
        "checkpoint": award.restore_manifest,
        "checkpoint_seq": award.restore_seq,
        "mode": award.mode,
        "generation": award.fence,
        "not_before": fenced,
        "max_silence": float(snapshot.job.order.max_silence),
        "mtbf_s": award.mtbf_s,
    }
    return IssueCommand(award.node, award.fence, f"start/{award.fence}", "start", payload, draft.policy.start_timeout_s)


def _started(draft: Draft, award: Award, failed: JobEvent, outcome: str) -> None:
    answer = draft.snapshot.command(f"start/{award.fence}")
    if answer is None or answer.ok is None:
        return
    if not answer.ok and answer.sent_at is None:
        void(draft, award, answer.error, UNSENT)
        return
    if not answer.ok:
        draft.end(award, failure(answer, outcome), final=False)
        draft.event(failed, answer.error, fence=award.fence, node=award.node)
        return
    draft.add(NoteAward(award.fence, {"started_at": answer.finished_at}))
    restored = draft.snapshot.job.state is JobState.RESTORING
    draft.event(
        JobEvent.STARTED, fence=award.fence, node=award.node, epoch=award.epoch, restored=restored, **_timings(answer)
    )


def _timings(answer: Command) -> dict[str, Any]:
    """The numbers of a node's answer (seconds, bytes), for the history."""
    return {key: value for key, value in answer.result.items() if isinstance(value, int | float)}
