"""Whether the escrow can pay: for another lease, and for how much longer under this one."""

from everlease.domain.lease import LeaseState
from everlease.domain.money import affordable_seconds, pay_for
from everlease.domain.snapshot import Award, Lease, Snapshot
from recovery.planner.policy import Policy
from recovery.planner.settling import how_to_settle

_SETTLE_DELAY_S = 10
"""A suspension is mined a little later than it is planned, and reserves for that time too."""


def required(snapshot: Snapshot, rate: int, policy: Policy) -> int:
    """What ``open`` at this rate needs free in escrow: minimum runtime, bond and epoch fee."""
    fee = snapshot.escrow.epoch_fee if snapshot.escrow else 0
    return pay_for(rate, policy.min_runtime_s) + policy.bond + fee


def available(snapshot: Snapshot, now: float) -> int:
    """What is free for the next lease once those before it are settled, in base units; never below zero."""
    if snapshot.escrow is None:
        return 0
    free = snapshot.escrow.free
    for lease in snapshot.leases:
        award = snapshot.award_of(lease.lease_id)
        if lease.state is not LeaseState.ACTIVE or award is None or award is snapshot.award:
            continue
        receipt = snapshot.receipts.get(lease.lease_id)
        shown, seen_at = lease.earned, lease.seen_at
        if receipt is not None:
            shown, seen_at = max(shown, receipt.earned), max(seen_at, receipt.seen_at)
        free += lease.reserve + lease.paid
        if how_to_settle(snapshot, award, now) == "close":
            final = receipt is not None and receipt.final
            served = shown if final else max(int(award.earned_s), shown)
            free += lease.bond - pay_for(lease.rate, served)
        else:
            silent = max(int(now) + _SETTLE_DELAY_S - seen_at, 0)
            free -= pay_for(lease.rate, shown + silent)
    return max(free, 0)


def remaining_s(snapshot: Snapshot, award: Award) -> int:
    """Seconds of service that can still be paid under this award's lease."""
    lease = snapshot.lease(award.lease_id)
    if lease is None or snapshot.escrow is None:
        return 2**63 - 1
    money = lease.reserve + snapshot.escrow.free - _unpaid(lease, award)
    return affordable_seconds(money, lease.rate) if money > 0 else 0


def _unpaid(lease: Lease, award: Award) -> int:
    return max(pay_for(lease.rate, int(award.earned_s)) - lease.paid, 0)
