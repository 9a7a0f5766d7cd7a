"""What the journal holds of each job: enough to go on after kill -9, and no key in clear."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from everlease.domain.terms import LeaseParams, lease_params
from everlease.wire.base import Cid, Hex32
from everlease.wire.commands import Prepare, Start
from everlease.wire.terms import BidModel, LeaseParamsModel, OrderModel

Phase = Literal["preparing", "prepared", "starting", "running", "held", "exited"]
PendingPhase = Literal["dumping", "dumped", "committing"]


class Record(BaseModel):
    """Frozen; change one with ``model_copy(update=…)``."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class PendingCheckpoint(Record):
    """The one checkpoint in flight. ``folder`` names its dump below the job's folder; ``request`` its commit."""

    seq: int
    request: str
    folder: str
    phase: PendingPhase = "dumping"
    manifest: Cid | None = None
    taken_at: float = 0.0
    pause_s: float = 0.0
    final: bool = False


class LogPosition(Record):
    """How far a stream was acknowledged: the cursor of its last piece, and the bytes up to there.

    ``sent``: the bytes that the gateway may have besides, since they were sent and no answer came yet.
    """

    cursor: str | None = None
    offset: int = 0
    sent: int = 0

    def after(self) -> "LogPosition":
        """Where the output of another container begins."""
        return LogPosition(offset=max(self.offset, self.sent))


class JobRecord(Record):
    """One award of a job to this node. ``start`` keeps the keys as they came: sealed to this node.

    ``mode`` is the way checkpoints are taken now; ``head`` and ``head_seq`` the newest committed one; ``taken_at``
    (unix) when its memory was written, so that work since then is what a loss would cost. ``daemon`` names the Docker
    daemon that was last seen running the container; ``host_fault`` says why its end was the host's doing.
    ``leaving``: it was frozen because this agent leaves, and goes on here only if the agent comes back to it;
    ``goodbye``: the market has taken the goodbye that said so, which an agent that starts again takes back.
    """

    job_id: Hex32
    fence: int
    phase: Phase
    prepare: Prepare
    start: Start | None = None
    container: str | None = None
    gpus: tuple[str, ...] = ()
    mode: Literal["process", "files", "none"] = "none"
    tried: bool = False
    started_at: float = 0.0
    head: Cid | None = None
    head_seq: int = 0
    taken_at: float = 0.0
    pause_s: float = 0.0
    upload_s: float = 0.0
    pending: PendingCheckpoint | None = None
    restarts: int = 0
    exit_code: int | None = None
    host_fault: str = ""
    leaving: bool = False
    goodbye: bool = False
    daemon: str = ""
    exit_reported: bool = False
    stdout: LogPosition = Field(default_factory=LogPosition)

    def state(self, *, frozen: bool) -> Literal["preparing", "running", "frozen", "exited"]:
        """What Hello says of it; ``frozen``: whether the guard fenced what runs."""
        if self.phase in ("preparing", "prepared", "starting"):
            return "preparing"
        if self.phase == "exited":
            return "exited"
        return "frozen" if frozen or self.phase == "held" else "running"


class LeaseRecord(Record):
    """A lease of ours, or one that our bid makes, kept until it is settled.

    ``open_until``: unix seconds, by the chain's clock, after which it can't be opened any more; 0 for one that was.
    """

    lease_id: Hex32
    params: LeaseParamsModel
    fence: int
    settled: bool = False
    open_until: int = 0


class BidRecord(Record):
    """A bid we signed, and the order it is on: what a later command may ask of us. ``digest`` is the bid's, EIP-712."""

    digest: Hex32
    bid: BidModel
    order: OrderModel

    def params(self, rate: int) -> LeaseParams:
        """The lease that this bid makes at ``rate`` (base units per hour)."""
        return lease_params(self.order.to_domain(), self.bid.to_domain(), rate)
