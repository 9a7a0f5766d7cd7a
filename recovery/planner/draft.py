"""A plan in the making, and the moves that several phases share."""

from dataclasses import dataclass, field

from everlease.domain.job import JobEvent
from everlease.domain.snapshot import Award, Snapshot
from recovery.moves import ApplyEvent, CloseAuction, EndAward, IssueCommand, Move, SignFinal
from recovery.planner.pay import paid_in_full
from recovery.planner.policy import Policy


@dataclass(slots=True)
class Draft:
    """Moves so far, and the earliest instant (unix seconds) at which time alone changes the answer."""

    snapshot: Snapshot
    now: float
    policy: Policy
    moves: list[Move] = field(default_factory=list)
    due: float | None = None

    def add(self, *moves: Move) -> None:
        """Append moves, in order."""
        self.moves.extend(moves)

    def event(self, event: JobEvent, reason: str = "", **data: object) -> None:
        """Append a move through the job's table."""
        self.add(ApplyEvent(event, reason, data))

    def wait_until(self, at: float) -> None:
        """Ask to be called again at ``at``."""
        self.due = at if self.due is None else min(self.due, at)

    def abandon_auction(self, why: str) -> None:
        """Close the newest auction if it takes bids, or was won for a migration that does not come off."""
        auction = self.snapshot.auction
        if auction is not None and (auction.closed_at is None or auction.outcome == "won"):
            self.add(CloseAuction(auction.id, f"abandoned: {why}", auction.winner))

    def end(self, award: Award, outcome: str, *, final: bool = True, recovery: bool = False) -> None:
        """End a tenure in agreement: last receipt, then the node removes the container."""
        if final:
            self.add(SignFinal(award.fence, paid_in_full(self.snapshot, award, outcome)))
        self.add(EndAward(award.fence, outcome, recovery))
        self.stop(award)

    def stop(self, award: Award, grace_s: float = 0.0) -> None:
        """Tell the award's node to remove the job."""
        step = f"stop/{award.fence}"
        if self.snapshot.command(step) is None:
            timeout = self.policy.stop_timeout_s + grace_s
            self.add(IssueCommand(award.node, award.fence, step, "stop", {"grace_s": grace_s}, timeout))

    def give_up(self, reason: str) -> None:
        """Nothing is left to try."""
        self.event(JobEvent.GAVE_UP, reason)
