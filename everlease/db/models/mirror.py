"""What the indexer keeps: raw events with their block, rows derived from them, undo rows, and where it stands.

Derived rows are written by indexer/reducers.py through everlease.db.mirror only. Addresses are lower case; amounts are
base units; ``*_at``, ``deadline`` and ``answer_by`` are unix seconds of the chain; ``block`` is the last block that
changed the row.
"""

from sqlalchemy import Computed, Index, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from everlease.db.models.base import (
    Address,
    AddressKey,
    Base,
    BigInt,
    CreatedAt,
    Hex32,
    Hex32Key,
    Json,
    JsonList,
    JsonText,
    LongText,
    Serial,
    Units,
)

_NEWEST_OF_NAME = ("name", "block_number", "log_index")


class CursorRow(Base):
    """The indexer's position, one row per database. ``halted`` says why it stopped and what to do, or is empty.

    ``genesis_hash`` tells the mirrored chain from another one with the same id, such as a test chain's next life.
    """

    __tablename__ = "idx_cursor"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    chain_id: Mapped[BigInt]
    escrow: Mapped[Address]
    staking: Mapped[Address]
    genesis_hash: Mapped[Hex32]
    block_number: Mapped[BigInt]
    block_hash: Mapped[Hex32]
    block_time: Mapped[BigInt]
    final_number: Mapped[BigInt]
    head_number: Mapped[BigInt]
    reorgs: Mapped[int] = mapped_column(default=0)
    halted: Mapped[LongText] = mapped_column(default="")
    updated_at: Mapped[CreatedAt]


class BlockRow(Base):
    """A block that was applied: all since finality (to find a common ancestor), before it those with events."""

    __tablename__ = "idx_block"

    number: Mapped[BigInt] = mapped_column(primary_key=True, autoincrement=False)
    hash: Mapped[Hex32] = mapped_column(unique=True)
    parent_hash: Mapped[Hex32]
    timestamp: Mapped[BigInt]
    events: Mapped[int] = mapped_column(default=0)


class EventRow(Base):
    """A contract event as it was read. ``parties`` are all addresses in its arguments, at most three.

    The indexes are for walks from the newest on. Each but the last begins with what a walk may be bound to and the
    event's name, so that it serves with a name and, walked once for each name, without.
    """

    __tablename__ = "idx_event"
    __table_args__ = (
        *(
            Index(f"ix_idx_event_{party}", party, *_NEWEST_OF_NAME, postgresql_where=text(f"{party} IS NOT NULL"))
            for party in ("party_1", "party_2", "party_3")
        ),
        Index("ix_idx_event_job", "job_id", *_NEWEST_OF_NAME, postgresql_where=text("job_id IS NOT NULL")),
        Index("ix_idx_event_lease", "lease_id", *_NEWEST_OF_NAME, postgresql_where=text("lease_id IS NOT NULL")),
        Index("ix_idx_event_name", *_NEWEST_OF_NAME),
    )

    block_number: Mapped[BigInt] = mapped_column(primary_key=True, autoincrement=False)
    log_index: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    block_hash: Mapped[Hex32]
    block_time: Mapped[BigInt]
    tx_hash: Mapped[Hex32]
    address: Mapped[Address]
    name: Mapped[str]
    args: Mapped[JsonText]
    job_id: Mapped[Hex32 | None]
    lease_id: Mapped[Hex32 | None]
    parties: Mapped[JsonList]
    party_1: Mapped[Address | None] = mapped_column(Computed("parties ->> 0", persisted=True))
    party_2: Mapped[Address | None] = mapped_column(Computed("parties ->> 1", persisted=True))
    party_3: Mapped[Address | None] = mapped_column(Computed("parties ->> 2", persisted=True))


class UndoRow(Base):
    """How a derived row looked before ``block_number`` first touched it (``before`` null: it didn't exist)."""

    __tablename__ = "idx_undo"
    __table_args__ = (UniqueConstraint("block_number", "table", "key"),)

    id: Mapped[Serial]
    block_number: Mapped[BigInt]
    table: Mapped[str]
    key: Mapped[str]
    before: Mapped[Json | None]


class TotalsRow(Base):
    """Counts and sums over the derived rows, one row per database; everlease.db.totals says of what."""

    __tablename__ = "idx_totals"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    jobs: Mapped[BigInt]
    leases_active: Mapped[BigInt]
    leases_closed: Mapped[BigInt]
    leases_suspended: Mapped[BigInt]
    leases_cleared: Mapped[BigInt]
    leases_failed: Mapped[BigInt]
    providers: Mapped[BigInt]
    nodes: Mapped[BigInt]
    staked: Mapped[Units]
    locked: Mapped[Units]
    slashed: Mapped[Units]
    escrowed: Mapped[Units]
    reserved: Mapped[Units]
    deposited: Mapped[Units]
    paid: Mapped[Units]
    claimable: Mapped[Units]
    withdrawn: Mapped[Units]


class LeaseRow(Base):
    """A lease; ``state`` is everlease.domain.lease.LeaseState. Zero times mean never.

    Walks without a state go over each state's part of an index.
    """

    __tablename__ = "lease"
    __table_args__ = (
        UniqueConstraint("job_id", "epoch"),
        Index("ix_lease_state", "state", "started_at", "lease_id"),
        Index("ix_lease_provider", "provider", "state", "started_at", "lease_id"),
    )

    lease_id: Mapped[Hex32Key]
    job_id: Mapped[Hex32]
    epoch: Mapped[int]
    provider: Mapped[Address]
    node: Mapped[Address]
    rate: Mapped[Units]
    collateral: Mapped[Units]
    reserve: Mapped[Units]
    bond: Mapped[Units]
    paid: Mapped[Units]
    fee: Mapped[Units]
    slashed: Mapped[Units]
    state: Mapped[str]
    noticed: Mapped[bool]
    earned: Mapped[BigInt]
    seen_at: Mapped[BigInt]
    seq: Mapped[BigInt]
    started_at: Mapped[BigInt]
    ends_at: Mapped[BigInt]
    closable_at: Mapped[BigInt]
    suspended_at: Mapped[BigInt]
    answer_by: Mapped[BigInt]
    ended_at: Mapped[BigInt]
    slot: Mapped[Units]
    tx_hash: Mapped[Hex32]
    block: Mapped[BigInt]


class EscrowRow(Base):
    """A job's escrow. ``balance`` includes ``reserved``; ``deposited`` counts fund and all top-ups.

    ``deadline``, ``max_epochs`` and ``max_rate_per_hour`` are those after extensions; the signed order's are in the
    columns ``order_…``. ``fees`` were withheld from the pay of its leases and are not swept yet.
    """

    __tablename__ = "escrow"
    __table_args__ = (Index("ix_escrow_tenant", "tenant", "funded_at"),)

    job_id: Mapped[Hex32Key]
    tenant: Mapped[Address]
    watcher: Mapped[Address]
    job_spec: Mapped[Hex32]
    max_rate_per_hour: Mapped[Units]
    deposit: Mapped[Units]
    min_collateral: Mapped[Units]
    max_silence: Mapped[int]
    max_epochs: Mapped[BigInt]
    epoch_fee: Mapped[Units]
    deadline: Mapped[BigInt]
    order_deadline: Mapped[BigInt]
    order_max_epochs: Mapped[BigInt]
    order_max_rate: Mapped[Units]
    nonce: Mapped[Units]
    epochs: Mapped[BigInt]
    balance: Mapped[Units]
    reserved: Mapped[Units]
    deposited: Mapped[Units]
    paid: Mapped[Units]
    fees: Mapped[Units]
    refunded: Mapped[Units]
    active_lease: Mapped[Hex32 | None]
    cancelled: Mapped[bool]
    funded_at: Mapped[BigInt]
    block: Mapped[BigInt]


class ProviderRow(Base):
    """A provider's stake and record."""

    __tablename__ = "provider"
    __table_args__ = (Index("ix_provider_staked", "staked", "provider"),)

    provider: Mapped[AddressKey]
    staked: Mapped[Units]
    locked: Mapped[Units]
    unbonding: Mapped[Units]
    unbonds_at: Mapped[BigInt]
    slashed: Mapped[Units]
    metadata_cid: Mapped[str]
    leases: Mapped[int]
    failed: Mapped[int]
    earned: Mapped[Units]
    block: Mapped[BigInt]


class NodeAuthRow(Base):
    """Which provider answers for a node; ``active`` is false once revoked."""

    __tablename__ = "node_auth"
    __table_args__ = (Index("ix_node_auth_provider", "provider", "node"),)

    node: Mapped[AddressKey]
    provider: Mapped[Address]
    active: Mapped[bool]
    block: Mapped[BigInt]


class ClaimableRow(Base):
    """What an account can withdraw, all it was ever credited and all it ever withdrew."""

    __tablename__ = "claimable"

    account: Mapped[AddressKey]
    amount: Mapped[Units]
    credited: Mapped[Units]
    withdrawn: Mapped[Units]
    block: Mapped[BigInt]


class SlashRow(Base):
    """A lease that failed and where the slash went. ``answered``: the drop penalty alone was taken."""

    __tablename__ = "slash"
    __table_args__ = (Index("ix_slash_at", "at", "lease_id"),)

    lease_id: Mapped[Hex32Key]
    job_id: Mapped[Hex32] = mapped_column(index=True)
    provider: Mapped[Address]
    node: Mapped[Address]
    caller: Mapped[Address]
    answered: Mapped[bool]
    slashed: Mapped[Units]
    to_job: Mapped[Units]
    to_caller: Mapped[Units]
    to_insurance: Mapped[Units]
    at: Mapped[BigInt]
    tx_hash: Mapped[Hex32]
    block: Mapped[BigInt]


class PaymentRow(Base):
    """One movement of money. ``reason``: DEPOSIT, TOP_UP (into escrow), a CreditReason, or WITHDRAWAL.

    ``id`` is block and log index; ``job_id`` and ``lease_id`` are those of the transaction's nearest earlier event.
    """

    __tablename__ = "payment"
    __table_args__ = (Index("ix_payment_account", "account", "id"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    account: Mapped[Address]
    reason: Mapped[str]
    amount: Mapped[Units]
    job_id: Mapped[Hex32 | None]
    lease_id: Mapped[Hex32 | None]
    at: Mapped[BigInt]
    tx_hash: Mapped[Hex32]
    block: Mapped[BigInt]
