"""Phases in which a job waits: for its deposit, for capacity, for its tenant, for money."""

from everlease.domain.job import FUND_WITHIN_S, JobEvent
from recovery.planner.backoff import held_back
from recovery.planner.bidding import let_in_soon, out_of_terms
from recovery.planner.draft import Draft
from recovery.planner.funds import available, required
from recovery.planner.history import begin_anew, dry_auctions
from recovery.planner.hosts import let_in_at

_LAPSED = "the order was not paid in time, so its image is kept no longer: launch the job anew"
_LATE = (
    "the order was paid too late, its image is kept no longer: take the deposit back with 'everlease job refund' and "
    "launch the job anew"
)


def pending(draft: Draft) -> None:
    """PENDING: until the deposit is mirrored, or comes too late: the image is kept for so long, and not for ever."""
    job = draft.snapshot.job
    lapses = min(float(job.order.deadline), job.created_at + FUND_WITHIN_S)
    if draft.now > lapses:
        draft.give_up(_LATE if draft.snapshot.escrow is not None else _LAPSED)
    elif draft.snapshot.escrow is not None:
        draft.event(JobEvent.FUNDED)
    else:
        draft.wait_until(lapses + 1.0)


def waiting_capacity(draft: Draft) -> None:
    """WAITING_CAPACITY: ask again at a node's news, once those that were kept out may be asked, or after a time that
    doubles with every dry auction; not before whatever holds the job back is over.
    """
    hold = held_back(draft)
    if hold is not None and hold.until is None and hold.reason != draft.snapshot.job.reason:
        draft.event(JobEvent.CAPACITY_TIMER, "held back")
        return
    if hold is not None and out_of_terms(draft) is None:
        escrow = draft.snapshot.escrow
        end = escrow.deadline - draft.policy.margin_s if escrow is not None else draft.now + draft.policy.reorg_grace_s
        draft.wait_until(min(hold.until or end, end))
        return
    dry = len(dry_auctions(draft.snapshot))
    last = draft.snapshot.auction
    since = last.closed_at if last is not None and last.closed_at is not None else draft.now
    at = since + min(draft.policy.capacity_wait_s * 2 ** min(max(dry - 1, 0), 16), draft.policy.capacity_wait_max_s)
    news = draft.snapshot.news_at
    reasons = [] if news is None else [news]
    reasons += let_in_at(draft).values()
    soonest = since + draft.policy.capacity_wake_s
    if let_in_soon(draft):
        at = soonest
    at = min([at, *(max(reason, soonest) for reason in reasons if reason > since)])
    if draft.now >= at:
        draft.event(JobEvent.CAPACITY_TIMER)
    else:
        draft.wait_until(at)


def exhausted(draft: Draft) -> None:
    """EXHAUSTED: until the escrow can pay a minimum runtime at the order's own ceiling, within its terms."""
    snapshot = draft.snapshot
    if snapshot.escrow is None or out_of_terms(draft) is not None:
        return
    if available(snapshot, draft.now) >= required(snapshot, snapshot.escrow.max_rate_per_hour, draft.policy):
        begin_anew(draft)
        draft.event(JobEvent.TOPPED_UP)


def parked(draft: Draft) -> None:
    """PARKED: until its tenant lets it go on. Where that can't come any more, the job has failed."""
    escrow = draft.snapshot.escrow
    if escrow is None:
        return
    if escrow.cancelled or draft.now >= escrow.deadline:
        why = "cancelled on chain" if escrow.cancelled else "past its deadline"
        draft.give_up(f"{draft.snapshot.job.reason}; it was parked, and its order is {why}")
    else:
        draft.wait_until(float(escrow.deadline))
