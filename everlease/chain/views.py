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
    """ILeaseEscrow.Job; an unknown job has the zero address as tenant."""

    tenant: str
    deadline: int
    max_silence: int
    watcher: str
    max_epochs: int
    epochs: int
    cancelled: bool
    max_rate_per_hour: int
    min_collateral: int
    epoch_fee: int
    balance: int
    reserved: int
    active_lease: str


@dataclass(frozen=True, slots=True)
class LeaseOnChain:
    """ILeaseEscrow.Lease; an unknown lease is in state NONE."""

    job_id: str
    provider: str
    epoch: int
    state: LeaseState
    noticed: bool
    node: str
    started_at: int
    rate: int
    collateral: int
    reserve: int
    bond: int
    paid: int
    earned: int
    seen_at: int
    seq: int
    ends_at: int
    closable_at: int
    suspended_at: int
    answer_by: int


@dataclass(frozen=True, slots=True)
class StakeOnChain:
    """IProviderStaking.Stake."""

    staked: int
    locked: int
    unbonding: int
    unbonds_at: int


_Struct = TypeVar("_Struct", JobOnChain, StakeOnChain)


def _plain(value: Any) -> Any:
    return "0x" + value.hex() if isinstance(value, bytes) else value


class Views:
    """Readers of one deployment over one chain; each method is one eth_call."""

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
        """A lease."""
        names = [field.name for field in fields(LeaseOnChain)]
        found = dict(zip(names, map(_plain, self._escrow("lease", bytes.fromhex(lease_id[2:]))), strict=True))
        found["state"] = _STATES[found["state"]]
        return LeaseOnChain(**found)

    def claimable(self, account: str) -> int:
        """What ``account`` can withdraw from the escrow."""
        return int(self._escrow("claimable", account))

    def order_revoked(self, tenant: str, job_id: str) -> bool:
        """Whether the tenant took its order back before it was funded."""
        return bool(self._escrow("orderRevoked", tenant, bytes.fromhex(job_id[2:])))

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
