"""Bodies of the marketplace's HTTP API. Amounts are base units, ``*_at`` unix seconds, ids and addresses 0x-hex."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from everlease.wire.base import Address, Cid, Hex32, Message, Signature, Units
from everlease.wire.spec import SpecModel
from everlease.wire.terms import OrderModel

Plain = Annotated[str, Field(max_length=200, pattern=r"^[^\x00-\x1f]*$")]
"""A line of text without control characters."""


class Out(BaseModel):
    """Base of answers: clients ignore fields they don't know."""

    model_config = ConfigDict(frozen=True)


class Problem(Out):
    """RFC 9457. ``type`` ends in a stable slug; ``detail`` is one sentence; ``errors`` lists fields of a bad body."""

    type: str
    title: str
    status: int
    detail: str
    instance: str = ""
    errors: list[dict[str, Any]] | None = None


class NonceOut(Out):
    """What a sign-in message (EIP-4361) must say to be accepted."""

    nonce: str
    domain: str
    uri: str
    chain_id: int
    statement: str
    expires_at: float


class SignInRequest(Message):
    """``cookie``: set an HttpOnly cookie instead of answering with the token (browsers)."""

    message: str = Field(max_length=4096)
    signature: Signature
    label: Plain = "cli"
    cookie: bool = False


class SignedIn(Out):
    """``token`` is shown this once; it is empty where a cookie was set."""

    address: Address
    token: str
    token_id: str
    expires_at: float


class TokenOut(Out):
    id: str
    label: str
    created_at: float
    expires_at: float


class TokenList(Out):
    items: list[TokenOut]


class JobRequest(Message):
    """A signed order and the spec it commits to. ``image_manifest``: CID of the image's block list in the store.

    ``funding``: how the tenant is going to fund it; an allowance is checked at once.
    """

    spec: SpecModel
    order: OrderModel
    order_signature: Signature
    image_manifest: Cid | None = None
    image_bytes: int = Field(default=0, ge=0, lt=1 << 46)
    funding: Literal["permit", "allowance"] = "permit"


class WishRequest(Message):
    """Why, in words, for the job's history. ``checkpoint_seq``: what to resume from, for ``resume`` alone; 0 is its
    beginning.
    """

    reason: Plain = ""
    checkpoint_seq: int | None = Field(default=None, ge=0, lt=2**31)


class LimitsOut(Out):
    """An order's limits as they stand after extensions; ``leases`` were opened of ``max_leases``."""

    deadline: int
    leases: int
    max_leases: int
    max_rate_per_hour: Units


class JobOut(Out):
    """``limits``: None until the deposit is seen in the escrow."""

    id: Hex32
    name: str
    tenant: Address
    state: str
    reason: str
    wish: str | None
    created_at: float
    ended_at: float | None
    epoch: int
    fence: int
    recoveries: int
    exit_code: int | None
    node: Address | None
    mode: str | None
    last_checkpoint_seq: int
    last_checkpoint_at: float | None
    loss_bound_s: float | None
    funded: bool
    spec: SpecModel
    order: OrderModel
    order_signature: str = ""
    image_manifest: str | None
    image_bytes: int
    limits: LimitsOut | None = None


class JobList(Out):
    items: list[JobOut]
    next_cursor: str | None


class LeaseOut(Out):
    lease_id: Hex32
    epoch: int
    provider: Address
    node: Address
    state: str
    rate_per_hour: Units
    collateral: Units
    paid: Units
    fee: Units
    slashed: Units
    reserve: Units
    earned_s: int
    seen_at: int
    started_at: int
    ends_at: int
    suspended_at: int
    answer_by: int
    ended_at: int
    tx_hash: Hex32


class LeaseList(Out):
    items: list[LeaseOut]


class CheckpointOut(Out):
    """``kept``: it is there, until ``kept_until`` where that is known already; ``superseded``: the job was resumed from
    before it; ``head``: the job goes on from it.
    """

    seq: int
    fence: int
    epoch: int
    node: Address
    provider: Address | None
    head: bool
    superseded: bool
    kept: bool
    kept_until: float | None
    mode: str
    manifest: str
    predecessor: str | None
    logical_bytes: int
    new_bytes: int
    pause_s: float
    total_s: float
    final: bool
    damaged: str
    taken_at: float
    committed_at: float


class CheckpointList(Out):
    items: list[CheckpointOut]
    next_cursor: str | None


class CostOut(Out):
    """``paid`` went to providers; ``owed`` is earned by receipts and not collected yet.

    ``projected_total`` is what the job will have cost if it stops now, epoch fees included; ``runs_for_s`` is how long
    the escrow lasts at the present lease's rate.
    """

    deposited: Units
    balance: Units
    reserved: Units
    paid: Units
    refunded: Units
    owed: Units
    refundable: Units
    projected_total: Units
    rate_per_hour: Units | None
    served_s: int
    runs_for_s: int | None


class EventOut(Out):
    id: int
    kind: str
    data: dict[str, Any]
    at: float


class EventList(Out):
    items: list[EventOut]
    next_id: int


class LogOut(Out):
    id: int
    fence: int
    stream: Literal["stdout", "stderr"]
    offset: int
    text: str
    at: float


class LogList(Out):
    items: list[LogOut]
    next_id: int


class OutputsOut(Out):
    """Keys are sealed to the caller's X25519 key (libsodium sealed box, base64), by generation."""

    manifest: str
    seq: int
    mode: str
    final: bool
    keys: dict[int, str]
    dedup_secret: str
    store_url: str
    store_token: str
    chain_id: int
    escrow: Address


class StoreTokenOut(Out):
    """A token for uploading one image; its blocks are pinned until it expires."""

    store_url: str
    store_token: str
    expires_at: float


class TopUpRequest(Message):
    """An intent to add escrow; the answer is the call to send from one's own wallet."""

    amount: int = Field(gt=0, lt=2**128)


class CallOut(Out):
    """A contract call for the caller's wallet, after an allowance of at least ``allowance``."""

    to: Address
    function: str
    args: list[Any]
    asset: Address
    allowance: Units


class ReserveOut(Out):
    """How auctions are priced: base units an hour for each CPU, GiB of memory and GPU where too few leases of a class
    have settled, and the schedule by which a reserve rises from there to the order's maximum, in equal rounds.
    """

    posted_cpu: int
    posted_gib: int
    posted_gpu: int
    rounds: int
    rise_s: float
    rise_in_recovery_s: float
    least_providers: int
    window_days: int


class MarketOut(Out):
    """What a client needs to sign an order and reach the parts."""

    chain_id: int
    escrow: Address
    staking: Address
    asset: Address
    watcher: Address
    store_url: str
    explorer_url: str
    fence_after_s: float
    heartbeat_every_s: float
    max_silence_bounds: tuple[int, int]
    suggested: dict[str, int]
    reserve: ReserveOut
    nodes_alive: int
    jobs_running: int
    jobs_total: int


class NodeOut(Out):
    """Public facts of a node. ``mtbf_s``: expected seconds between losses, as auctions count them."""

    node: Address
    provider: Address
    liveness: str
    connected: bool
    draining: bool
    version: str
    facts: dict[str, Any]
    last_seen: float | None
    losses: int
    served_s: float
    mtbf_s: float
    stake: Units
    stake_locked: Units


class NodeList(Out):
    items: list[NodeOut]
    next_cursor: str | None
