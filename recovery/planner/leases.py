"""Leases on chain against the award that should hold one: opened, taken away by a reorg, ended by others, left over."""

from everlease.domain.job import JobEvent, JobState, allows
from everlease.domain.lease import LeaseState
from everlease.domain.liveness import LivenessPolicy, fenced_at
from everlease.domain.snapshot import Award, ChainTx, Lease, Snapshot
from recovery.moves import EnqueueSettle, IssueCommand, NoteAward, Record, SignFinal
from recovery.planner.draft import Draft
from recovery.planner.hosts import GAVE_NOTICE, ended_well
from recovery.planner.pay import paid_in_full
from recovery.planner.settling import LOST, how_to_settle, silent_from

QUIET = frozenset({"moved", "finished", "stopped", "migrated", "hibernated", "exhausted"})
"""Outcomes after which the node itself said that the workload doesn't run: it exited or is held frozen."""
_NOT_STARTED = frozenset({"restore_failed", "unfit"})
"""Outcomes after which the node said that it did not get the workload to run."""
SETTLEMENT_FAILING = "lease.settlement_failing"
"""The line in a job's history, and in the log, about a lease that could not be settled so often."""
_LONGEST_BACKOFF_S = 3600.0
_WITH_NEXT_OPEN = frozenset({JobState.AUCTIONING, JobState.RECOVERING, JobState.ALLOCATING})


def left_over(snapshot: Snapshot) -> Lease | None:
    """The lease that is ACTIVE on chain though its award is over, if any; a contract has at most one per job."""
    for lease in snapshot.leases:
        award = snapshot.award_of(lease.lease_id)
        if lease.state is LeaseState.ACTIVE and award is not None and not award.current:
            return lease
    return None


def fencing_time(snapshot: Snapshot, award: Award, policy: LivenessPolicy) -> float:
    """Unix seconds from which no earlier host of the job can be running it; 0 where none could."""
    return max((_fenced(snapshot, old, policy) for old in snapshot.awards if old.fence < award.fence), default=0.0)


def _fenced(snapshot: Snapshot, old: Award, policy: LivenessPolicy) -> float:
    if old.start_sent_at is None or (old.outcome in QUIET and not _may_have_restarted(snapshot, old)):
        return 0.0
    answers = (snapshot.command(f"{kind}/{old.fence}") for kind in ("freeze", "stop"))
    if any(answer is not None and answer.ok for answer in answers):
        return 0.0
    started = snapshot.command(f"start/{old.fence}")
    if old.outcome in _NOT_STARTED and started is not None and not started.expired:
        return 0.0
    seen = [at for at in (old.last_beat_at, old.last_seen_at, old.start_sent_at) if at is not None]
    if old.outcome != LOST and old.ended_at is not None:
        seen.append(old.ended_at)
    return fenced_at(max(seen), policy)


def _may_have_restarted(snapshot: Snapshot, old: Award) -> bool:
    """Whether a restart was given up for want of an answer: the node may have made it all the same."""
    return any(c.expired for c in snapshot.commands if c.kind == "restart" and c.fence == old.fence)


def watch_lease(draft: Draft, award: Award) -> bool:
    """Compare the current award with its lease; True where the award came to its end by that."""
    lease = draft.snapshot.lease(award.lease_id)
    if lease is None or lease.state is LeaseState.NONE:
        return award.opened_at is not None and _vanished(draft, award)
    if lease.state is not LeaseState.ACTIVE and award.exit_code == 0 and ended_well(draft.snapshot, award):
        return False
    if lease.state is not LeaseState.ACTIVE:
        outcome = GAVE_NOTICE if lease.noticed and lease.state is LeaseState.CLOSED else "voided"
        return void(draft, award, f"the lease is {lease.state} on chain", outcome)
    if award.unopened_at is not None:
        draft.add(NoteAward(award.fence, facts={"unopened_at": None}))
    return False


def _vanished(draft: Draft, award: Award) -> bool:
    """A reorg took LeaseOpened away: the sender sends ``open`` again; after the grace the award is void."""
    txs = draft.snapshot.open_txs(award)
    if txs and txs[-1].came_to_nothing:
        return void(draft, award, f"a reorg took the lease away and it can't be opened again: {txs[-1].error}")
    if award.unopened_at is None:
        draft.add(
            NoteAward(award.fence, facts={"unopened_at": draft.now}),
            Record("lease.vanished", {"lease_id": award.lease_id, "fence": award.fence}),
        )
        return False
    grace = award.unopened_at + draft.policy.reorg_grace_s
    if draft.now >= grace:
        return void(draft, award, "a reorg took the lease away")
    draft.wait_until(grace)
    return False


def void(draft: Draft, award: Award, reason: str, outcome: str = "voided") -> bool:
    """The award is void: its node freezes at once and drops the job, which goes to auction again."""
    if not allows(draft.snapshot.job.state, JobEvent.VOIDED):
        return False
    step = f"freeze/{award.fence}"
    if award.start_sent_at is not None:
        draft.add(IssueCommand(award.node, award.fence, step, "freeze", {}, draft.policy.stop_timeout_s))
    draft.abandon_auction(reason)
    lease = draft.snapshot.lease(award.lease_id)
    # A final receipt would clear a suspension, whoever's fault it was.
    draft.end(award, outcome, final=lease is None or lease.state is not LeaseState.SUSPENDED)
    draft.event(JobEvent.VOIDED, reason)
    return True


def settle_left_over(draft: Draft) -> None:
    """Close or suspend a lease whose award is over, unless the next ``open`` takes it along."""
    snapshot = draft.snapshot
    lease = left_over(snapshot)
    if lease is None or (snapshot.job.state in _WITH_NEXT_OPEN and not _stuck(snapshot, lease)):
        return
    award = snapshot.award_of(lease.lease_id)
    assert award is not None
    how = how_to_settle(snapshot, award, draft.now)
    if how == "suspend" and draft.now < silent_from(snapshot, lease):
        draft.wait_until(silent_from(snapshot, lease))
        return
    attempts = snapshot.txs_for(f"settle/{lease.lease_id}/")
    tried = number_of(attempts[-1]) + 1 if attempts else 0
    if attempts and not attempts[-1].came_to_nothing:
        return
    if attempts and draft.now < attempts[-1].created_at + backoff_s(tried):
        draft.wait_until(attempts[-1].created_at + backoff_s(tried))
        return
    if tried >= draft.policy.max_attempts:
        told = {"lease_id": lease.lease_id, "tries": tried, "error": attempts[-1].error}
        draft.add(Record(SETTLEMENT_FAILING, told))
    receipt = snapshot.receipts.get(lease.lease_id)
    if how == "close" and (receipt is None or not receipt.final):
        draft.add(SignFinal(award.fence, paid_in_full(snapshot, award, award.outcome)))
    draft.add(EnqueueSettle(lease.lease_id, how, f"settle/{lease.lease_id}/{tried}"))


def number_of(attempt: ChainTx) -> int:
    """Which attempt at its action a transaction is; counted they can't be: a snapshot has the newest alone."""
    return int(attempt.action_key.rsplit("/", 1)[1])


def backoff_s(tried: int) -> float:
    """Seconds after the last of ``tried`` failed attempts at a settlement until the next: money never is given up."""
    return min(2.0 ** min(tried - 1, 12), _LONGEST_BACKOFF_S)


def may_try_again(draft: Draft, attempts: tuple[ChainTx, ...]) -> bool:
    """Whether an action may be journaled (again): after a failure, later each time, and not for ever."""
    if not attempts:
        return True
    again = attempts[-1].created_at + 2.0 ** (len(attempts) - 1)
    if not attempts[-1].came_to_nothing or len(attempts) >= draft.policy.max_attempts:
        return False
    if draft.now < again:
        draft.wait_until(again)
        return False
    return True


def _stuck(snapshot: Snapshot, lease: Lease) -> bool:
    """Whether the job's own ``open`` was journaled before this lease turned up and can't take it along."""
    award = snapshot.award
    if award is None:
        return False
    return bool(snapshot.open_txs(award)) and award.settle == ""
