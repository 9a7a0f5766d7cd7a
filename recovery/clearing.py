"""Suspended leases whose suspension was not their host's fault: a final receipt clears them, sent by the watcher."""

from everlease.chain.typed_data import lease_id
from everlease.db import Tx, awards, faults, jobs, journal, receipts, snapshots, timers
from everlease.db.models.jobs import JobRow
from everlease.domain.fault import Blame, Evidence, judge
from recovery.apply import Desk
from recovery.planner.pay import paid_in_full
from recovery.receipts import sign


def clear_leases(desk: Desk) -> int:
    """Journal an ``answer`` for every lease that the evidence clears; returns how many are new.

    The receipt says what was earned, so a host that never served is paid nothing but the bond; one that was taken out
    of its work is paid to the end, as if the job had been cancelled.
    """
    with desk.database.transaction() as tx:
        chain_now = timers.chain_time(tx) or 0
        cases = faults.suspended(tx, desk.watcher.address, chain_now)
    cleared = 0
    for case in cases:
        with desk.database.transaction() as tx:
            cleared += _clear(tx, desk, case, chain_now)
    return cleared


def _clear(tx: Tx, desk: Desk, case: faults.Suspension, chain_now: int) -> bool:
    award = faults.award_under(tx, case.lease_id)
    held = awards.locked(tx, award.job_id, award.fence) if award is not None else None
    if held is None or held[0].ended_at is None:
        return False
    evidence = faults.evidence(tx, held[0], case, chain_now)
    verdict = judge(evidence)
    if verdict.blame is not Blame.OTHERS:
        return False
    sign(tx, desk.watcher, *held, final=True, in_full=_in_full(tx, held[1], case, evidence), now=desk.clock())
    row = receipts.newest(tx, case.lease_id)
    if row is None or not row.final:
        return False
    key = f"answer/{lease_id(case.params)}"
    known = journal.find(tx, key)
    call = desk.calls.answer(case.params, receipts.terms_of(row), row.signature)
    journal.enqueue(
        tx,
        action_key=key,
        sender=desk.watcher.address,
        to=call.to,
        data=call.data,
        call=call.name,
        job_id=case.params.job_id,
        again=True,
    )
    if known is None:
        told = {"lease_id": case.lease_id, "node": case.params.node, "why": verdict.reason}
        jobs.record(tx, case.params.job_id, "lease.cleared", told)
    return known is None


def _in_full(tx: Tx, job: JobRow, case: faults.Suspension, evidence: Evidence) -> bool:
    """Whether it was heard to the end, and its award ended in a way that costs no host the work since a checkpoint."""
    snapshot = snapshots.load(tx, job)
    award = snapshot.award_of(case.lease_id)
    return award is not None and not evidence.silent and paid_in_full(snapshot, award, award.outcome)
