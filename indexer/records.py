"""The derived rows as frozen structs: the reducers' only material. Units as in everlease.db.models.mirror.

Structs of msgspec and no dataclasses: ``replace`` of one takes a tenth of the time, and it is most of what reducers do.
"""

from typing import ClassVar

from msgspec import Struct
from msgspec.structs import replace

from everlease.domain.lease import LeaseState

__all__ = ["KINDS", "Claimable", "Escrow", "Lease", "NodeAuth", "Payment", "Provider", "Record", "Slash", "replace"]


class Lease(Struct, frozen=True, gc=False):
    """One epoch of a job."""

    TABLE: ClassVar[str] = "lease"

    lease_id: str
    job_id: str
    epoch: int
    provider: str
    node: str
    rate: int
    collateral: int
    reserve: int
    bond: int
    started_at: int
    ends_at: int
    closable_at: int
    slot: int
    tx_hash: str
    block: int
    state: str = LeaseState.ACTIVE.value
    noticed: bool = False
    paid: int = 0
    fee: int = 0
    slashed: int = 0
    earned: int = 0
    seen_at: int = 0
    seq: int = 0
    suspended_at: int = 0
    answer_by: int = 0
    ended_at: int = 0

    @property
    def key(self) -> str:
        return self.lease_id


class Escrow(Struct, frozen=True, gc=False):
    """A job's money."""

    TABLE: ClassVar[str] = "escrow"

    job_id: str
    tenant: str
    watcher: str
    job_spec: str
    max_rate_per_hour: int
    deposit: int
    min_collateral: int
    max_silence: int
    max_epochs: int
    epoch_fee: int
    deadline: int
    order_deadline: int
    order_max_epochs: int
    order_max_rate: int
    nonce: int
    balance: int
    deposited: int
    funded_at: int
    block: int
    epochs: int = 0
    reserved: int = 0
    paid: int = 0
    fees: int = 0
    refunded: int = 0
    active_lease: str | None = None
    cancelled: bool = False

    @property
    def key(self) -> str:
        return self.job_id


class Provider(Struct, frozen=True, gc=False):
    """A provider's stake and record."""

    TABLE: ClassVar[str] = "provider"

    provider: str
    block: int
    staked: int = 0
    locked: int = 0
    unbonding: int = 0
    unbonds_at: int = 0
    slashed: int = 0
    metadata_cid: str = ""
    leases: int = 0
    failed: int = 0
    earned: int = 0

    @property
    def key(self) -> str:
        return self.provider


class NodeAuth(Struct, frozen=True, gc=False):
    """Who answers for a node."""

    TABLE: ClassVar[str] = "node_auth"

    node: str
    provider: str
    active: bool
    block: int

    @property
    def key(self) -> str:
        return self.node


class Claimable(Struct, frozen=True, gc=False):
    """An account's credit in the escrow."""

    TABLE: ClassVar[str] = "claimable"

    account: str
    block: int
    amount: int = 0
    credited: int = 0
    withdrawn: int = 0

    @property
    def key(self) -> str:
        return self.account


class Slash(Struct, frozen=True, gc=False):
    """A lease that failed."""

    TABLE: ClassVar[str] = "slash"

    lease_id: str
    job_id: str
    provider: str
    node: str
    caller: str
    answered: bool
    slashed: int
    to_job: int
    to_caller: int
    to_insurance: int
    at: int
    tx_hash: str
    block: int

    @property
    def key(self) -> str:
        return self.lease_id


class Payment(Struct, frozen=True, gc=False):
    """One movement of money."""

    TABLE: ClassVar[str] = "payment"

    id: str
    account: str
    reason: str
    amount: int
    job_id: str | None
    lease_id: str | None
    at: int
    tx_hash: str
    block: int

    @property
    def key(self) -> str:
        return self.id


Record = Lease | Escrow | Provider | NodeAuth | Claimable | Slash | Payment
KINDS: dict[str, type[Record]] = {
    "lease": Lease,
    "escrow": Escrow,
    "provider": Provider,
    "node_auth": NodeAuth,
    "claimable": Claimable,
    "slash": Slash,
    "payment": Payment,
}
APPENDED: frozenset[type[Record]] = frozenset({Payment, Slash})
"""Kinds of which an event makes a new row, under a key of its own: there is never one to be read before."""
