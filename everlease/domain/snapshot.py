"""What the recovery planner sees of a job: one consistent reading of its rows, as plain data.

Times are unix seconds (float; those of the chain are integers), amounts base units. Loaded by everlease.db.snapshots.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from everlease.domain.auction import Offer
from everlease.domain.job import JobState
from everlease.domain.jobspec import JobSpec
from everlease.domain.lease import LeaseState
from everlease.domain.reserve import Reserve
from everlease.domain.terms import Order, Receipt

RECOVERED = ("lost", "moved", "unstored", "undumpable")
"""Outcomes of awards that ran, and from which the job was recovered."""
FAILING = ("moved", "undumpable")
"""Outcomes of awards whose hosts say that the job fails by its own fault."""


@dataclass(frozen=True, slots=True)
class Job:
    """The job's row. ``created_at``: when its order was posted. ``resumed_fence``: awards up to this fence are from
    before its tenant resumed it.
    """

    id: str
    state: JobState
    order: Order
    spec: JobSpec
    spec_json: Mapping[str, Any]
    image_manifest: str | None
    image_bytes: int
    image_digest: str
    created_at: float
    wish: str | None = None
    fence: int = 0
    epoch: int = 0
    head_seq: int = 0
    head_manifest: str | None = None
    resumed_fence: int = 0
    recoveries: int = 0
    due_at: float | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Goodbye:
    """A node stops in order: the head it left the job with, whether the workload stands still, why no newer one.

    ``recent``: in how many sessions it did so within the last week, this one included.
    """

    at: float
    head: str | None
    still: bool
    why: str = ""
    reason: str = ""
    recent: int = 1


@dataclass(frozen=True, slots=True)
class Award:
    """A node's tenure. ``exit_code``: the container ended and nobody has acted on it yet; ``exited_at`` when.

    ``saved_s``: what ``earned_s`` was at the last commit; ``forfeited_s``: how much of both went with host faults.
    ``host_fault``: why that end was the host's doing, where it was; ``host_faults``: how many of them were made up for.
    ``idle_since``: since when its heartbeats say that the workload does not run; ``storing``: the last said that it
    stands still for something to be stored. ``restarts``, ``host_faults``, ``asked_checkpoints`` and ``hibernations``
    number the commands: of those a snapshot has the newest alone.
    """

    fence: int
    epoch: int
    node: str
    provider: str
    lease_id: str
    rate_per_hour: int
    mode: str
    awarded_at: float
    auction_id: int | None = None
    bid: Mapping[str, Any] = field(default_factory=dict)
    restore_seq: int = 0
    restore_manifest: str | None = None
    settle: str = ""
    prepared_at: float | None = None
    opened_at: float | None = None
    unopened_at: float | None = None
    start_sent_at: float | None = None
    started_at: float | None = None
    held_at: float | None = None
    ended_at: float | None = None
    outcome: str = ""
    last_beat_at: float | None = None
    last_seen_at: float | None = None
    silent: bool = False
    idle_since: float | None = None
    storing: bool = False
    earned_s: float = 0.0
    saved_s: float = 0.0
    forfeited_s: float = 0.0
    mtbf_s: float = 86_400.0
    restarts: int = 0
    exit_code: int | None = None
    exited_at: float | None = None
    host_fault: str = ""
    host_faults: int = 0
    asked_checkpoints: int = 0
    hibernations: int = 0
    goodbye: Goodbye | None = None
    final_commit_failed: str = ""
    undumpable: str = ""

    @property
    def current(self) -> bool:
        """Whether this tenure lasts."""
        return self.ended_at is None


@dataclass(frozen=True, slots=True)
class Command:
    """A command to a node; ``ok`` is None until it was answered or expired."""

    fence: int
    node: str
    step: str
    kind: str
    created_at: float
    deadline: float
    finished_at: float | None = None
    ok: bool | None = None
    error: str = ""
    retryable: bool = False
    result: Mapping[str, Any] = field(default_factory=dict)
    sent_at: float | None = None

    @property
    def expired(self) -> bool:
        """Whether it was given up for want of an answer: the node may have done it all the same."""
        return self.finished_at is not None and not self.ok and self.finished_at >= self.deadline


@dataclass(frozen=True, slots=True)
class Auction:
    """A call for bids. ``winner`` is the winning node's award-to-be where a migration prepares before it moves;
    ``bids_until``: unix seconds until which a bid must be good; ``asked``: the nodes whose answers are waited for.
    ``reserve``, and its ``age_s`` by the database's clock, are those of an auction that takes bids; ``held_round``: the
    newest round of which it was noted that all bids were above the reserve.
    """

    id: int
    epoch: int
    plan: str
    mode: str
    opened_at: float
    closes_at: float
    bids_until: int
    closed_at: float | None = None
    excluded: Mapping[str, str] = field(default_factory=dict)
    asked: frozenset[str] = frozenset()
    declined: frozenset[str] = frozenset()
    outcome: str = ""
    unfit: Mapping[str, str] = field(default_factory=dict)
    winner: Mapping[str, Any] = field(default_factory=dict)
    reserve: Reserve | None = None
    age_s: float = 0.0
    held_round: int = -1


@dataclass(frozen=True, slots=True)
class SignedOffer:
    """An offer of the newest auction with its node's signature."""

    offer: Offer
    signature: str


@dataclass(frozen=True, slots=True)
class Lease:
    """A lease of this job as the mirror has it. After ``exit_at`` anyone may close it."""

    lease_id: str
    epoch: int
    node: str
    state: LeaseState
    rate: int
    reserve: int
    bond: int
    paid: int
    earned: int
    seen_at: int
    started_at: int
    ends_at: int
    exit_at: int
    noticed: bool = False


@dataclass(frozen=True, slots=True)
class Escrow:
    """The job's escrow as the mirror has it; ``balance`` includes ``reserved``."""

    epochs: int
    max_epochs: int
    max_rate_per_hour: int
    max_silence: int
    epoch_fee: int
    deadline: int
    balance: int
    reserved: int
    cancelled: bool = False

    @property
    def free(self) -> int:
        """What no lease reserves."""
        return max(self.balance - self.reserved, 0)


@dataclass(frozen=True, slots=True)
class ChainTx:
    """One of our transactions for this job."""

    action_key: str
    call: str
    state: str
    error: str = ""
    created_at: float = 0.0

    @property
    def came_to_nothing(self) -> bool:
        """Refused, or reverted in a block. A reorg can turn a revert that is not final into a success, so act on this
        only with what the contracts allow once: opening an epoch, settling a lease."""
        return self.state in ("failed", "reverted")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A committed checkpoint that is still there, and sound."""

    seq: int
    fence: int
    manifest: str
    predecessor: str | None
    mode: str
    final: bool
    block_cids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Reach:
    """Who could go on from the head while nobody takes the job, by what connected hosts say of themselves.

    ``since``: unix seconds since when every auction was dry. ``met``: whether a host of another provider than the
    head's could restore it. ``before``: the newest checkpoint of another provider that a host could restore which can't
    restore the head; ``lost_s``: the seconds of work between the two.
    """

    since: float
    met: bool
    before: Checkpoint
    lost_s: float


@dataclass(frozen=True, slots=True)
class Unended:
    """The head is final, but nobody told that the job ended. ``before``: the newest ancestor of the head that holds the
    program; None where none is kept.
    """

    before: Checkpoint | None = None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All that a decision about one job depends on. Lists are in the order of their fence, id, epoch or seq, and the
    newest of a long history: nothing may be counted in them that has no bound.

    ``winner_unfit``: why the newest auction's winner can't restore the head as it is now, empty where it can.
    ``other``: while the job is at auction, the newest checkpoint before the head of another provider than the head's,
    without its blocks.
    ``unended``: while the job is at auction, None but where its head is of an end that nobody told of.
    ``reach``: None but where nobody took the job, and there is an earlier checkpoint that somebody could take.
    ``resume_seq``: the checkpoint from which the job is asked to be resumed, 0 for its beginning; None for its head.
    ``resume_gone``: that one is no longer kept.
    ``unserved``: leases since the tenant last let the job go on under which next to nothing was served;
    ``bonds_given``: how many of the job's bonds went to hosts which earned nothing meanwhile.
    ``recovered``: providers that the job was recovered from since then; all that are not proven count as one.
    ``proven``: of the providers that bid and of those that say that the job fails, the ones that served other tenants
    here for long enough (``db.records``); ``young``: some say that it fails, and the market has no such provider yet.
    These three while the job is at auction or migrates.
    ``unread``: its node told something of the job that waits to be written down, an exit perhaps.
    ``news_at``: where the job waits for capacity, when a node came or told other facts since the newest auction.
    """

    job: Job
    awards: tuple[Award, ...] = ()
    commands: tuple[Command, ...] = ()
    auctions: tuple[Auction, ...] = ()
    offers: tuple[SignedOffer, ...] = ()
    leases: tuple[Lease, ...] = ()
    escrow: Escrow | None = None
    txs: tuple[ChainTx, ...] = ()
    checkpoints: tuple[Checkpoint, ...] = ()
    receipts: Mapping[str, Receipt] = field(default_factory=dict)
    draining_nodes: frozenset[str] = frozenset()
    gone_nodes: frozenset[str] = frozenset()
    news_at: float | None = None
    winner_unfit: str = ""
    other: Checkpoint | None = None
    unended: Unended | None = None
    reach: Reach | None = None
    resume_seq: int | None = None
    resume_gone: bool = False
    unread: bool = False
    unserved: int = 0
    bonds_given: int = 0
    recovered: int = 0
    proven: frozenset[str] = frozenset()
    young: bool = False

    @property
    def award(self) -> Award | None:
        """The tenure that lasts, if any: it carries the job's current fence."""
        for award in reversed(self.awards):
            if award.current and award.fence == self.job.fence:
                return award
        return None

    @property
    def auction(self) -> Auction | None:
        """The newest auction."""
        return self.auctions[-1] if self.auctions else None

    def award_of(self, lease_id: str) -> Award | None:
        """The newest tenure under this lease."""
        return next((award for award in reversed(self.awards) if award.lease_id == lease_id), None)

    def lease(self, lease_id: str) -> Lease | None:
        """The mirrored lease, if the chain has it now."""
        return next((lease for lease in self.leases if lease.lease_id == lease_id), None)

    def command(self, step: str) -> Command | None:
        """The command of this step, if it was issued."""
        return next((command for command in self.commands if command.step == step), None)

    def txs_for(self, prefix: str) -> tuple[ChainTx, ...]:
        """The attempts at one action, oldest first: keys are the action's name and the attempt's number."""
        return tuple(tx for tx in self.txs if tx.action_key.startswith(prefix))

    def open_txs(self, award: Award) -> tuple[ChainTx, ...]:
        """The attempts to open this award's lease."""
        return self.txs_for(f"open/{self.job.id}/{award.fence}/")

    @property
    def head(self) -> Checkpoint | None:
        """The checkpoint that the head names."""
        return next((point for point in self.checkpoints if point.manifest == self.job.head_manifest), None)
