"""How a lease ends whose award is over: in agreement, or disputed. Never a word about whose fault it was.

A host that was never sent its Start owes nothing, so its lease is closed with a final receipt, and so is a lease past
its exit time, which is over for both sides. Where the host was lost, or failed before it served, the lease is
suspended; ``recovery.clearing`` then decides by evidence whether it is cleared.
"""

from everlease.domain.fault import FAILED_STEP
from everlease.domain.snapshot import Award, Command, Lease, Snapshot
from recovery.moves import SettleHow

LOST = "lost"
EXIT_MARGIN_S = 30
"""A ``suspend`` that is sent later than this before the exit time could be mined after it, when it must not work."""


def how_to_settle(snapshot: Snapshot, award: Award, now: float) -> SettleHow:
    """What ends the lease of an award that is over; ``now`` in unix seconds."""
    lease = snapshot.lease(award.lease_id)
    if lease is not None and (now >= lease.exit_at - EXIT_MARGIN_S or silent_from(snapshot, lease) > lease.ends_at):
        return "close"
    if award.outcome == LOST:
        return "suspend" if _start_was_sent(snapshot, award) else "close"
    failed = award.started_at is None and award.outcome in FAILED_STEP
    return "suspend" if failed and _was_sent(snapshot.command(f"prepare/{award.fence}")) else "close"


def silent_from(snapshot: Snapshot, lease: Lease) -> float:
    """The first unix second at which ``suspend`` is legal: strictly after seenAt + maxSilence, chain seconds."""
    receipt = snapshot.receipts.get(lease.lease_id)
    seen = max(lease.seen_at, lease.started_at, receipt.seen_at if receipt else 0)
    silence = snapshot.escrow.max_silence if snapshot.escrow else snapshot.job.order.max_silence
    return float(seen + silence + 1)


def _start_was_sent(snapshot: Snapshot, award: Award) -> bool:
    if award.started_at is not None:
        return True
    return award.start_sent_at is not None and _was_sent(snapshot.command(f"start/{award.fence}"))


def _was_sent(command: Command | None) -> bool:
    """Whether the gateway handed it over. Of one that is too old for the snapshot that is taken for granted."""
    return command is None or command.sent_at is not None
