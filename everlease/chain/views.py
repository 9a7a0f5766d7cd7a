"""What the contracts say now, as dataclasses in the order of their structs. Ids are 0x-hex, amounts base units."""

from dataclasses import dataclass, fields
from typing import Any, TypeVar

from everlease.chain.abi import decode_result, encode_call
from everlease.chain.base import ChainReader
from everlease.chain.deployment import Deployment
from everlease.domain.lease import LeaseState
from everlease.domain.terms import Bid, NodeAuth, Order, Receipt

_STATES = tuple(LeaseState)


@dataclass(frozen=True, slots=True)
class JobOnChain:
    """ILeaseEscrow.Job: base units that no lease has set aside, fees withheld in ended leases, and where it stands."""

    free: int
    fees: int
    epochs: int
    funded: bool
    active: bool
    cancelled: bool


@dataclass(frozen=True, slots=True)
class LimitsOnChain:
    """ILeaseEscrow.Limits: an order's limits after extensions."""

    deadline: int
    max_epochs: int
    max_rate_per_hour: int


@dataclass(frozen=True, slots=True)
class LeaseOnChain:
    """ILeaseEscrow.Lease; in state NONE if it was never opened or has ended. Times are unix seconds; ``seen``,
    ``earned``, ``paid`` and ``covered`` seconds. ``ends_at`` is the second of the suspension once it is SUSPENDED;
    after ``exit_at`` anyone may close (ACTIVE) or fail it (SUSPENDED)."""

    state: LeaseState
    started_at: int
    ends_at: int
    exit_at: int
    seen: int
    earned: int
    paid: int
    covered: int


@dataclass(frozen=True, slots=True)
class StakeOnChain:
    """IProviderStaking.Stake, in base units: ``slashed`` is a part of ``deposited``; ``unbonds_at`` unix seconds."""

    deposited: int
    slashed: int
    unbonding: int
    unbonds_at: int

    @property
    def staked(self) -> int:
        """What is the provider's still."""
        return self.deposited - self.slashed


_Struct = TypeVar("_Struct", JobOnChain, LimitsOnChain, StakeOnChain)


def _plain(value: Any) -> Any:
    return "0x" + value.hex() if isinstance(value, bytes) else value


class Views:
    """Readers of one deployment over one chain; each method is one eth_call, but for ``locked``."""

    def __init__(self, chain: ChainReader, deployment: Deployment) -> None:
        self._chain = chain
        self._deployment = deployment

    def _view(self, contract: str, to: str, name: str, *arguments: Any) -> Any:
        return decode_result(contract, name, self._chain.call(to, encode_call(contract, name, *arguments)))[0]

    def _escrow(self, name: str, *arguments: Any) -> Any:
        return self._view("LeaseEscrow", self._deployment.escrow, name, *arguments)

    def _staking(self, name: str, *arguments: Any) -> Any:
        return self._view("ProviderStaking", self._deployment.staking, name, *arguments)

    def job(self, job_id: str) -> JobOnChain:
        """A job's escrow."""
        return _struct(JobOnChain, self._escrow("job", bytes.fromhex(job_id[2:])))

    def lease(self, lease_id: str) -> LeaseOnChain:
        """A lease that lives."""
        names = [field.name for field in fields(LeaseOnChain)]
        found = dict(zip(names, map(_plain, self._escrow("lease", bytes.fromhex(lease_id[2:]))), strict=True))
        found["state"] = _STATES[found["state"]]
        return LeaseOnChain(**found)

    def claimable(self, account: str) -> int:
        """What ``account`` can withdraw from the escrow."""
        return int(self._escrow("claimable", account))

    def limits(self, order: Order) -> LimitsOnChain:
        """An order's deadline, epochs and rate as they stand after extensions."""
        return _struct(LimitsOnChain, self._escrow("limits", _values(order)))

    def locked(self, provider: str) -> int:
        """Base units of a provider's stake that are collateral of active and suspended leases."""
        return int(self._escrow("lockedOf", provider)) - self.stake(provider).slashed

    def stake(self, provider: str) -> StakeOnChain:
        """A provider's stake."""
        return _struct(StakeOnChain, self._staking("stakeOf", provider))

    def lockable(self, provider: str) -> int:
        """Stake that a new lease can lock."""
        return int(self._staking("lockable", provider))

    def provider_of(self, node: str) -> str | None:
        """Whom a node works for, or None."""
        found = str(self._staking("providerOf", node))
        return None if int(found, 16) == 0 else found

    def asset_balance(self, account: str) -> int:
        """Base units of the asset that ``account`` holds."""
        return int(self._view("MockDollar", self._deployment.asset, "balanceOf", account))

    def allowance(self, owner: str, spender: str) -> int:
        """Base units that ``spender`` may take from ``owner``."""
        return int(self._view("MockDollar", self._deployment.asset, "allowance", owner, spender))

    def order_hash(self, order: Order) -> bytes:
        """The contract's own digest of an order."""
        return bytes(self._escrow("hashOrder", _values(order)))

    def bid_hash(self, bid: Bid) -> bytes:
        """The contract's own digest of a bid."""
        return bytes(self._escrow("hashBid", _values(bid)))

    def receipt_hash(self, receipt: Receipt) -> bytes:
        """The contract's own digest of a receipt."""
        return bytes(self._escrow("hashReceipt", _values(receipt)))

    def node_auth_hash(self, auth: NodeAuth) -> bytes:
        """The contract's own digest of a NodeAuth."""
        return bytes(self._staking("hashNodeAuth", _values(auth)))


def _struct(kind: type[_Struct], values: tuple[Any, ...]) -> _Struct:
    names = [field.name for field in fields(kind)]
    return kind(**dict(zip(names, map(_plain, values), strict=True)))


def _values(message: Order | Bid | Receipt | NodeAuth) -> tuple[Any, ...]:
    """A message's fields in order, 32-byte ids as bytes."""
    found = (getattr(message, field.name) for field in fields(message))
    return tuple(bytes.fromhex(v[2:]) if isinstance(v, str) and len(v) == 66 else v for v in found)
