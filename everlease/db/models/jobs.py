"""Jobs and everything that hangs on one: auctions, bids, awards, checkpoints, keys, receipts, events, logs."""

from sqlalchemy import ForeignKey, Index, LargeBinary, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from everlease.db.models.base import (
    Address,
    AddressKey,
    Base,
    BigInt,
    Cid,
    CreatedAt,
    Hex32,
    Hex32Key,
    Instant,
    Json,
    JsonList,
    LongText,
    Serial,
    Units,
)


class JobRow(Base):
    """One job. ``fence`` and ``head_*`` are the fenced head of its checkpoint chain; times are unix or timestamptz.

    ``last_seq``: the number of the newest commit; greater than ``head_seq`` where the head went back.
    ``resumed_fence``: awards up to this fence are from before its tenant resumed it, and count for nothing.
    ``kept_until``: when its checkpoints go, as far as that is known.

    ``fence`` is raised by every award and never reused; ``epoch`` is the number of the last lease that was opened.
    ``wish`` is what the tenant or provider asked for and the planner has not done yet (migrate, hibernate, cancel).
    ``due_at``: the planner wants to look at this job again then.
    """

    __tablename__ = "job"

    id: Mapped[Hex32Key]
    name: Mapped[str]
    tenant: Mapped[Address] = mapped_column(index=True)
    watcher: Mapped[Address]
    order: Mapped[Json]
    order_signature: Mapped[LongText]
    spec: Mapped[Json]
    image_digest: Mapped[str]
    image_manifest: Mapped[Cid | None]
    image_bytes: Mapped[BigInt] = mapped_column(default=0)
    state: Mapped[str] = mapped_column(index=True)
    reason: Mapped[LongText] = mapped_column(default="")
    wish: Mapped[str | None]
    wish_detail: Mapped[Json] = mapped_column(default=dict)
    fence: Mapped[BigInt] = mapped_column(default=0)
    epoch: Mapped[int] = mapped_column(default=0)
    head_seq: Mapped[int] = mapped_column(default=0)
    head_manifest: Mapped[Cid | None]
    last_seq: Mapped[int] = mapped_column(default=0)
    resumed_fence: Mapped[BigInt] = mapped_column(default=0)
    recoveries: Mapped[int] = mapped_column(default=0)
    exit_code: Mapped[int | None]
    due_at: Mapped[Instant | None] = mapped_column(index=True)
    created_at: Mapped[CreatedAt]
    ended_at: Mapped[Instant | None]
    kept_until: Mapped[Instant | None]


class AuctionRow(Base):
    """One call for bids. Open until ``closed_at``; ``plan`` says what for (first, recovery, migration, resume).

    ``excluded``: the nodes and providers that are not asked, and why, in words for them.
    ``bids_until``: how long a bid must be good.
    ``asked``: the nodes that the auction waits for. One that fits later is asked too, and not waited for.
    ``reserve``: everlease.domain.reserve.Reserve, fixed in the transaction that opens the auction; its clock is the
    database's, from ``called_at``. ``held_round``: the newest round in which all bids were above it, -1 for none.
    """

    __tablename__ = "auction"

    id: Mapped[Serial]
    job_id: Mapped[Hex32] = mapped_column(ForeignKey("job.id"), index=True)
    epoch: Mapped[int]
    plan: Mapped[str]
    mode: Mapped[str]
    excluded: Mapped[Json] = mapped_column(default=dict)
    asked: Mapped[JsonList] = mapped_column(default=list)
    opened_at: Mapped[Instant]
    closes_at: Mapped[Instant]
    bids_until: Mapped[Instant]
    closed_at: Mapped[Instant | None]
    outcome: Mapped[LongText] = mapped_column(default="")
    unfit: Mapped[Json] = mapped_column(default=dict)
    winner: Mapped[Json] = mapped_column(default=dict)
    reserve: Mapped[Json] = mapped_column(default=dict, deferred=True)
    held_round: Mapped[int] = mapped_column(default=-1)
    called_at: Mapped[CreatedAt]


class BidRow(Base):
    """A verified bid in an auction, with what was measured of its node at that moment. ``held``: why it did not win
    the newest round, in words for its node.
    """

    __tablename__ = "bid"
    __table_args__ = (UniqueConstraint("auction_id", "node"),)

    id: Mapped[Serial]
    auction_id: Mapped[BigInt] = mapped_column(ForeignKey("auction.id"), index=True)
    node: Mapped[Address]
    provider: Mapped[Address]
    bid: Mapped[Json]
    signature: Mapped[LongText]
    missing_bytes: Mapped[BigInt] = mapped_column(default=0)
    held: Mapped[LongText] = mapped_column(default="")
    received_at: Mapped[CreatedAt]


class PriceRow(Base):
    """An award that a rival's bid priced: one of each tenant, provider and day (since 1970) in a class, the newest.

    ``rate`` and ``seconds`` (that were paid) are null until the lease has settled in a block that is final.
    """

    __tablename__ = "price"
    __table_args__ = (
        Index("ix_price_settled", "price_class", "seconds", "lease_id", postgresql_where=text("seconds > 0")),
        Index(
            "ix_price_model", "price_class", "gpu_model", "seconds", "lease_id", postgresql_where=text("seconds > 0")
        ),
        Index("ix_price_unsettled", "lease_id", postgresql_where=text("seconds IS NULL")),
        Index("ix_price_day", "day"),
    )

    price_class: Mapped[str] = mapped_column(primary_key=True)
    gpu_model: Mapped[str] = mapped_column(primary_key=True)
    day: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    tenant: Mapped[AddressKey]
    provider: Mapped[AddressKey]
    lease_id: Mapped[Hex32]
    rate: Mapped[Units | None]
    seconds: Mapped[BigInt | None]


class AwardRow(Base):
    """A node's tenure over a job under one fence. Facts with their times; the phase is derived from them.

    ``lease_id`` repeats where a node is reinstated under the same lease. ``settle`` says how the lease before this one
    ends in the same transaction as this one's open (suspend, close or nothing). ``idle_since``: the first of the
    heartbeats in a row that say that the workload does not run; ``storing``: the last said that it stands still for
    something to be stored. ``saved_s``: what ``earned_s`` was when a checkpoint was last committed; ``forfeited_s``:
    how much of both went with faults of the host.
    """

    __tablename__ = "award"
    __table_args__ = (UniqueConstraint("job_id", "fence"),)

    id: Mapped[Serial]
    job_id: Mapped[Hex32] = mapped_column(ForeignKey("job.id"), index=True)
    fence: Mapped[BigInt]
    epoch: Mapped[int]
    auction_id: Mapped[BigInt | None]
    node: Mapped[Address] = mapped_column(index=True)
    provider: Mapped[Address] = mapped_column(index=True)
    bid: Mapped[Json]
    bid_signature: Mapped[LongText]
    rate_per_hour: Mapped[Units]
    lease_id: Mapped[Hex32] = mapped_column(index=True)
    mode: Mapped[str]
    generation: Mapped[int]
    restore_seq: Mapped[int] = mapped_column(default=0)
    restore_manifest: Mapped[Cid | None]
    settle: Mapped[str] = mapped_column(default="")
    awarded_at: Mapped[Instant]
    prepared_at: Mapped[Instant | None]
    opened_at: Mapped[Instant | None]
    start_sent_at: Mapped[Instant | None]
    started_at: Mapped[Instant | None]
    held_at: Mapped[Instant | None]
    ended_at: Mapped[Instant | None]
    outcome: Mapped[str] = mapped_column(default="")
    last_beat_at: Mapped[Instant | None]
    earned_s: Mapped[float] = mapped_column(default=0.0)
    saved_s: Mapped[float] = mapped_column(default=0.0)
    forfeited_s: Mapped[float] = mapped_column(default=0.0)
    serving: Mapped[bool] = mapped_column(default=False)
    idle_since: Mapped[Instant | None]
    storing: Mapped[bool] = mapped_column(default=False)
    loss_bound_s: Mapped[float | None]
    restarts: Mapped[int] = mapped_column(default=0)
    facts: Mapped[Json] = mapped_column(default=dict)


class CheckpointRow(Base):
    """A committed checkpoint. ``block_cids`` is the gc's mark set and what a node may fetch before it has the key.

    ``seq`` numbers the job's commits and is never used again. ``depth`` is the manifest's own number, its place in the
    chain of its predecessors: hosts know it by that. ``superseded``: no ancestor of the head, since the job went back
    to before it, by its tenant's wish or because no host went on from it. ``damaged``: why, where the store's copy is.
    """

    __tablename__ = "checkpoint"

    job_id: Mapped[Hex32Key]
    seq: Mapped[int] = mapped_column(primary_key=True)
    depth: Mapped[int]
    fence: Mapped[BigInt]
    epoch: Mapped[int]
    node: Mapped[Address]
    mode: Mapped[str]
    manifest: Mapped[Cid] = mapped_column(unique=True)
    predecessor: Mapped[Cid | None]
    block_cids: Mapped[JsonList]
    generation: Mapped[int]
    generations: Mapped[JsonList]
    requirements: Mapped[Json]
    logical_bytes: Mapped[BigInt]
    new_bytes: Mapped[BigInt]
    pause_s: Mapped[float]
    total_s: Mapped[float]
    final: Mapped[bool] = mapped_column(default=False)
    damaged: Mapped[LongText] = mapped_column(default="")
    superseded: Mapped[bool] = mapped_column(default=False)
    taken_at: Mapped[Instant]
    committed_at: Mapped[CreatedAt]
    condemned_at: Mapped[Instant | None]


class JobKeyRow(Base):
    """A generation's key, wrapped under the key service's master key. Generation 0 is the job's dedup secret."""

    __tablename__ = "job_key"

    job_id: Mapped[Hex32Key]
    generation: Mapped[int] = mapped_column(primary_key=True)
    wrapped: Mapped[bytes] = mapped_column(LargeBinary())
    created_at: Mapped[CreatedAt]


class MasterKeyRow(Base):
    """Which master key wraps this database's job keys; one row. ``fingerprint`` is derived from the key, one way."""

    __tablename__ = "master_key"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    fingerprint: Mapped[bytes] = mapped_column(LargeBinary())
    created_at: Mapped[CreatedAt]


class ReceiptRow(Base):
    """The newest receipt of a lease."""

    __tablename__ = "receipt"

    lease_id: Mapped[Hex32Key]
    job_id: Mapped[Hex32] = mapped_column(index=True)
    node: Mapped[Address]
    seq: Mapped[BigInt]
    seen_at: Mapped[BigInt]
    earned: Mapped[BigInt]
    final: Mapped[bool]
    checkpoint_root: Mapped[Hex32]
    signature: Mapped[LongText]
    signed_at: Mapped[Instant]


class JobEventRow(Base):
    """The job's history, as people and the report read it."""

    __tablename__ = "job_event"
    __table_args__ = (Index("ix_job_event_job_id_id", "job_id", "id"),)

    id: Mapped[Serial]
    job_id: Mapped[Hex32]
    kind: Mapped[str]
    data: Mapped[Json]
    at: Mapped[CreatedAt]


class JobLogRow(Base):
    """A piece of a job's output: bytes ``offset`` to ``until`` of its stream, as its node counts them.

    (job, fence, stream, offset) is unique, so a repeat is dropped.
    """

    __tablename__ = "job_log"
    __table_args__ = (
        UniqueConstraint("job_id", "fence", "stream", "offset"),
        Index("ix_job_log_job_id_id", "job_id", "id"),
    )

    id: Mapped[Serial]
    job_id: Mapped[Hex32]
    fence: Mapped[BigInt]
    stream: Mapped[str]
    offset: Mapped[BigInt]
    until: Mapped[BigInt]
    text: Mapped[LongText]
    at: Mapped[CreatedAt]
