"""The node ↔ gateway protocol over one WebSocket: JSON text frames, one message a frame.

The gateway opens with ``challenge``; the node answers ``hello`` signed by its key (EIP-712 NodeHello, hashed in
everlease.chain); then both number their messages from 1. A number that is not the next closes the socket.
"""

from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter

from everlease.wire.base import Address, Cid, Count, Hex32, Message, Open, Sentence, Short, Signature
from everlease.wire.commands import AnyCommand, CommandResult
from everlease.wire.terms import OrderModel, SignedBid, SignedReceipt

MAX_FRAME_BYTES = 4 * 1024 * 1024
MAX_HELLO_BYTES = 128 * 1024
"""Until a node is admitted; 64 KiB of facts and 256 containers fit. The gateway agrees to no compression."""


class Challenge(Message):
    type: Literal["challenge"] = "challenge"
    nonce: Hex32
    chain_id: int
    escrow: Address
    fence_after: float
    heartbeat_every: float


class Hello(Message):
    """``sealing_key`` is the node's X25519 public key, base64; the signature covers nonce, node and sealing key."""

    type: Literal["hello"] = "hello"
    node: Address
    provider: Address
    nonce: Hex32
    sealing_key: str = Field(max_length=64)
    version: Short
    facts: Open
    containers: list["HeldContainer"] = Field(default_factory=list, max_length=256)
    signature: Signature


class FactsMessage(Message):
    """The host's facts are others than Hello said: its Docker was exchanged, or a trial showed what that is worth."""

    type: Literal["facts"] = "facts"
    seq: Count
    facts: Open


class HeldContainer(Message):
    """A container the node holds: the gateway confirms its fence or tells the node to drop it."""

    job_id: Hex32
    fence: Count
    state: Literal["running", "frozen", "preparing", "exited"]


class Welcome(Message):
    """The node is admitted. ``confirmed`` lists the jobs whose fence is current: only those may thaw."""

    type: Literal["welcome"] = "welcome"
    session: Short
    confirmed: dict[str, int]
    dropped: list[Hex32]
    resume_after_s: float = 0.0


class JobBeat(Message):
    """One job in a heartbeat. ``serving``: the workload ran, unfrozen, since the last heartbeat.

    ``storing``: it stands still for outputs that are stored, or for a checkpoint after which it goes elsewhere.
    """

    job_id: Hex32
    fence: Count
    serving: bool
    pid_count: Count = 0
    memory_bytes: Count = 0
    disk_bytes: Count = 0
    loss_bound_s: float | None = None
    storing: bool = False


class Heartbeat(Message):
    type: Literal["heartbeat"] = "heartbeat"
    seq: Count
    jobs: list[JobBeat] = Field(max_length=256)


class HeartbeatAck(Message):
    """Acknowledges heartbeat ``ack``; ``refused`` lists jobs whose fence is stale: freeze them now and drop them."""

    type: Literal["heartbeat_ack"] = "heartbeat_ack"
    seq: Count
    ack: Count
    refused: list[Hex32] = Field(default_factory=list)


class CallForBids(Message):
    """``bids_until``: the unix second until which a bid must be good."""

    type: Literal["call_for_bids"] = "call_for_bids"
    seq: Count
    auction_id: Count
    order: OrderModel
    order_hash: Hex32
    order_signature: Signature
    spec: dict[str, Any]
    epoch: int
    closes_in_s: float
    bids_until: Count
    checkpoint_requirements: dict[str, Any] | None = None
    image_digest: str
    checkpoint: Cid | None = None
    checkpoint_bytes: int = 0


class BidMessage(Message):
    """``missing_bytes``: what this node would still have to fetch of image and checkpoint."""

    type: Literal["bid"] = "bid"
    seq: Count
    auction_id: Count
    signed: SignedBid
    missing_bytes: Count


class Decline(Message):
    type: Literal["decline"] = "decline"
    seq: Count
    auction_id: Count
    reason: Sentence


class CommandMessage(Message):
    type: Literal["command"] = "command"
    seq: Count
    command: AnyCommand


class ResultMessage(Message):
    type: Literal["command_result"] = "command_result"
    seq: Count
    result: CommandResult


class CommitCheckpoint(Message):
    """Ask the gateway to make ``manifest`` the head of the job's chain; all its blocks are already in the store."""

    type: Literal["commit_checkpoint"] = "commit_checkpoint"
    seq: Count
    request: Short
    job_id: Hex32
    fence: Count
    checkpoint_seq: Count
    manifest: Cid
    predecessor: Cid | None
    manifest_digest: Hex32
    signature: Signature
    block_cids: list[Cid] = Field(max_length=200_000)
    mode: Literal["process", "files"]
    generation: Count
    generations: list[Count] = Field(max_length=10_000)
    logical_bytes: Count
    new_bytes: Count
    pause_s: float = Field(ge=0)
    total_s: float = Field(ge=0)
    taken_at: float
    requirements: Open
    final: bool = False


class CommitAnswer(Message):
    type: Literal["commit_answer"] = "commit_answer"
    seq: Count
    request: Short
    ok: bool
    error: Sentence = ""
    head: Cid | None = None
    fenced: bool = False


class Receipts(Message):
    type: Literal["receipts"] = "receipts"
    seq: Count
    receipts: list[SignedReceipt] = Field(max_length=256)


class LogChunk(Message):
    """Output of a job: ``offset`` counts bytes of that stream under this fence, restarts in place included; a repeat is
    dropped.
    """

    type: Literal["log"] = "log"
    seq: Count
    job_id: Hex32
    fence: Count
    stream: Literal["stdout", "stderr"]
    offset: Count
    text: str = Field(max_length=256 * 1024)


class JobNotice(Message):
    """Something happened at the node: exited, trial dump findings, a failed checkpoint, a full disk, fenced."""

    type: Literal["notice"] = "notice"
    seq: Count
    job_id: Hex32
    fence: Count
    kind: Literal[
        "exited", "trial_dump", "checkpoint_failed", "disk_full", "oom_killed", "fenced", "thawed", "progress"
    ]
    detail: Sentence = ""
    data: Open = Field(default_factory=dict)


class Drain(Message):
    """The provider wants this node empty: every job migrates, no more bids. ``within_s``: it stops after that time."""

    type: Literal["drain"] = "drain"
    seq: Count
    reason: Sentence = ""
    within_s: float | None = Field(default=None, ge=0, le=86_400)


class Restarting(Message):
    """The agent ends only to be started anew, and its jobs stay: for a while its silence is no loss."""

    type: Literal["restarting"] = "restarting"
    seq: Count


class LastWord(Message):
    """How a node leaves a job: the newest checkpoint it committed or began from, and whether the workload stands still.

    ``why`` says why there is no newer checkpoint, where work since then is lost.
    """

    job_id: Hex32
    fence: Count
    head: Cid | None = None
    still: bool
    why: Sentence = ""


class Goodbye(Message):
    """The node stops now and in order. Said again it changes nothing; jobs that it leaves out are lost like any."""

    type: Literal["goodbye"] = "goodbye"
    seq: Count
    reason: Sentence = ""
    jobs: list[LastWord] = Field(default_factory=list, max_length=256)


class DrainStatus(Message):
    type: Literal["drain_status"] = "drain_status"
    seq: Count
    jobs_left: int


class TokenRequest(Message):
    """Ask for a fresh block store token for one job; answered by TokenGrant."""

    type: Literal["token_request"] = "token_request"
    seq: Count
    request: Short
    job_id: Hex32
    fence: Count


class TokenGrant(Message):
    type: Literal["token_grant"] = "token_grant"
    seq: Count
    request: Short
    ok: bool
    token: str = ""
    error: Sentence = ""


class ReceiptRequest(Message):
    """Ask for the newest receipt of a lease this node serves; answered by Receipts, or Refusal under a stale fence."""

    type: Literal["receipt_request"] = "receipt_request"
    seq: Count
    job_id: Hex32
    fence: Count
    lease_id: Hex32


class Ping(Message):
    """The monitor's probe; answered by Pong at once."""

    type: Literal["ping"] = "ping"
    seq: Count


class Pong(Message):
    type: Literal["pong"] = "pong"
    seq: Count
    ping: Count


class Refusal(Message):
    """The gateway refuses one message (stale fence, unknown job) and says why; the socket stays open."""

    type: Literal["refusal"] = "refusal"
    seq: Count
    of: Short
    job_id: Hex32 | None = None
    reason: Sentence


FromNode = Annotated[
    Heartbeat
    | FactsMessage
    | BidMessage
    | Decline
    | ResultMessage
    | CommitCheckpoint
    | LogChunk
    | JobNotice
    | Drain
    | Restarting
    | Goodbye
    | TokenRequest
    | ReceiptRequest
    | Pong,
    Field(discriminator="type"),
]
ToNode = Annotated[
    HeartbeatAck | CallForBids | CommandMessage | CommitAnswer | Receipts | DrainStatus | TokenGrant | Ping | Refusal,
    Field(discriminator="type"),
]
from_node: TypeAdapter[FromNode] = TypeAdapter(FromNode)
to_node: TypeAdapter[ToNode] = TypeAdapter(ToNode)
