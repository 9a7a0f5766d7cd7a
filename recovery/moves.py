"""What the planner can decide. Plain values: applied by recovery.apply, in order, in one transaction."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from everlease.domain.job import JobEvent

SettleHow = Literal["suspend", "close"]


@dataclass(frozen=True, slots=True)
class ApplyEvent:
    """Move the job through its table."""

    event: JobEvent
    reason: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Record:
    """Add a line to the job's history."""

    kind: str
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ClearWish:
    """The wish was done or makes no sense here."""


@dataclass(frozen=True, slots=True)
class BeginFrom:
    """The tenant lets the job go on from its checkpoint ``seq``, 0 for its beginning, None for its head; what failed
    before is forgotten.
    """

    seq: int | None


@dataclass(frozen=True, slots=True)
class OpenAuction:
    """Call for bids on epoch ``epoch`` for ``window_s`` seconds.

    ``excluded``: nodes and providers that are not asked, and why.
    ``bids_until``: unix seconds until which a bid must be good, for ``open`` may come that late.
    The reserve is fixed with it and rises to ``maximum`` (base units per hour) in ``rise_s``; ``last``: in a recovery
    the job's last provider and rate, from which it rises.
    """

    epoch: int
    plan: str
    mode: str
    window_s: float
    bids_until: int
    maximum: int
    rise_s: float
    last: tuple[str, int] | None = None
    excluded: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class HoldBids:
    """All bids are above the reserve of this round; they stand, and the next round looks at them again.

    ``held``: why, in words for each node.
    """

    auction_id: int
    number: int
    held: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class CloseAuction:
    """Take no more bids; ``winner`` is kept where a migration prepares before it moves."""

    auction_id: int
    outcome: str
    winner: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class GiveAward:
    """Raise the fence, read the restore point and give the job to ``node`` (base units per hour).

    ``priced_by_rivals``: another bid set the rate, so that it says what such a lease costs.
    """

    auction_id: int
    epoch: int
    node: str
    provider: str
    bid: Mapping[str, Any]
    signature: str
    rate_per_hour: int
    mode: str
    mtbf_s: float
    priced_by_rivals: bool
    settle: SettleHow | Literal[""] = ""


@dataclass(frozen=True, slots=True)
class NoteAward:
    """Set instants of an award (unix seconds, or None to clear): prepared_at, opened_at, started_at, held_at, …"""

    fence: int
    instants: Mapping[str, float | None] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CountRestart:
    """The container was started again on the spot; the exit that led to it is dealt with.

    ``host_fault``: it was the host's doing and counts apart.
    """

    fence: int
    host_fault: bool = False


@dataclass(frozen=True, slots=True)
class SignFinal:
    """Sign the award's last receipt: the lease ends. ``in_full``: nothing that was served went with the host."""

    fence: int
    in_full: bool


@dataclass(frozen=True, slots=True)
class EndAward:
    """The node's tenure is over. ``recovery`` counts it among the job's recoveries."""

    fence: int
    outcome: str
    recovery: bool = False


@dataclass(frozen=True, slots=True)
class IssueCommand:
    """Tell a node to do something, once per step. ``payload`` lacks what the gateway adds (keys, tokens)."""

    node: str
    fence: int
    step: str
    kind: str
    payload: Mapping[str, Any]
    timeout_s: float


@dataclass(frozen=True, slots=True)
class EnqueueOpen:
    """Journal ``open`` for this award, in one multicall with what ends the lease before."""

    fence: int
    action_key: str
    settle_lease: str | None = None
    settle_how: SettleHow = "close"


@dataclass(frozen=True, slots=True)
class EnqueueSettle:
    """Journal ``close`` or ``suspend`` of a lease alone, with its newest receipt."""

    lease_id: str
    how: SettleHow
    action_key: str


@dataclass(frozen=True, slots=True)
class RewindHead:
    """The head can't be restored, or nobody can take it: the head goes back to ``seq``/``manifest``, and what came
    after that is superseded. Number 0, without a manifest, is the job's beginning. ``corrupt``: the marketplace found
    the head's blocks so in the store.
    """

    reason: str
    seq: int = 0
    manifest: str | None = None
    corrupt: bool = False


@dataclass(frozen=True, slots=True)
class SetExitCode:
    """The container's last exit code."""

    code: int


@dataclass(frozen=True, slots=True)
class SetDue:
    """Look at this job again at ``at`` (unix seconds), or only when something happens."""

    at: float | None


Move = (
    ApplyEvent
    | Record
    | ClearWish
    | BeginFrom
    | OpenAuction
    | HoldBids
    | CloseAuction
    | GiveAward
    | NoteAward
    | CountRestart
    | SignFinal
    | EndAward
    | IssueCommand
    | EnqueueOpen
    | EnqueueSettle
    | RewindHead
    | SetExitCode
    | SetDue
)
