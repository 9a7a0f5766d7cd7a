"""The four messages that parties sign (EIP-712), as DESIGN section 3 fixes them, and what a lease is made of.

Hashing lives in everlease.chain."""

from dataclasses import dataclass

from everlease.domain.money import pay_for

ZERO_BYTES32 = "0x" + "00" * 32
UNSERVED_SHARE = 20
"""Leases under which next to nothing was served cost one part in so many of the deposit at most: fees and bonds."""


@dataclass(frozen=True, slots=True)
class Order:
    """A tenant's signed demand. Amounts in base units, rates per hour, times in (unix) seconds, ids 0x-hex."""

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
    nonce: int


def least_deposit(order: Order, bond: int, min_runtime: int) -> int:
    """Base units that the contract wants free to open a lease at the order's highest rate (``open``, docs/protocol.md).
    ``bond`` in base units and ``min_runtime`` in seconds are the deployment's."""
    return order.epoch_fee + bond + pay_for(order.max_rate_per_hour, min_runtime)


def bearable(spent: int, deposit: int) -> bool:
    """Whether unserved leases may have cost so much, in base units, of an order with this deposit."""
    return spent * UNSERVED_SHARE <= deposit


@dataclass(frozen=True, slots=True)
class Bid:
    """A node's signed offer for one epoch of one order; bids that share (provider, slot) exclude each other."""

    provider: str
    node: str
    order_hash: str
    epoch: int
    min_rate_per_hour: int
    collateral: int
    deadline: int
    slot: int


@dataclass(frozen=True, slots=True)
class LeaseParams:
    """What is fixed when a lease is opened; its hash is the lease's id, and every call about a lease brings it."""

    job_id: str
    tenant: str
    watcher: str
    provider: str
    node: str
    epoch: int
    max_silence: int
    rate: int
    collateral: int
    slot: int


def lease_params(order: Order, bid: Bid, rate: int) -> LeaseParams:
    """The lease that ``bid`` on ``order`` makes at ``rate`` (base units per hour)."""
    return LeaseParams(
        job_id=bid.order_hash,
        tenant=order.tenant,
        watcher=order.watcher,
        provider=bid.provider,
        node=bid.node,
        epoch=bid.epoch,
        max_silence=order.max_silence,
        rate=rate,
        collateral=bid.collateral,
        slot=bid.slot,
    )


@dataclass(frozen=True, slots=True)
class Receipt:
    """The watcher's word: ``earned`` cumulative seconds of service, last heartbeat seen at ``seen_at``."""

    lease_id: str
    seq: int
    seen_at: int
    earned: int
    final: bool
    checkpoint_root: str = ZERO_BYTES32


@dataclass(frozen=True, slots=True)
class NodeAuth:
    """A node's consent to act for a provider, checked by ProviderStaking."""

    provider: str
    node: str
    deadline: int
    nonce: int
