"""Every call of the two contracts and the asset, as call data. Who may call what is in contracts/interfaces/."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from everlease.chain.abi import decode_result, encode_call
from everlease.chain.base import ChainReader
from everlease.chain.deployment import Deployment
from everlease.chain.typed_data import TokenPermit, permit_digest
from everlease.domain.terms import ZERO_BYTES32, Bid, LeaseParams, NodeAuth, Order, Receipt

Sign = Callable[[bytes], str]


@dataclass(frozen=True, slots=True)
class Call:
    """A call that is ready to be sent: target, call data, and its name for people and reports."""

    to: str
    data: bytes
    name: str


@dataclass(frozen=True, slots=True)
class Permit:
    """A signed EIP-2612 permit as the contracts take it; a zero deadline means none."""

    value: int = 0
    deadline: int = 0
    v: int = 0
    r: bytes = b"\0" * 32
    s: bytes = b"\0" * 32


NO_PERMIT = Permit()
NO_RECEIPT = Receipt(ZERO_BYTES32, 0, 0, 0, False)


def _raw(value: str) -> bytes:
    return bytes.fromhex(value.removeprefix("0x"))


def _receipt(receipt: Receipt) -> tuple[Any, ...]:
    return (
        _raw(receipt.lease_id),
        receipt.seq,
        receipt.seen_at,
        receipt.earned,
        receipt.final,
        _raw(receipt.checkpoint_root),
    )


def _order(order: Order) -> tuple[Any, ...]:
    return (
        order.tenant,
        order.watcher,
        _raw(order.job_spec),
        order.max_rate_per_hour,
        order.deposit,
        order.min_collateral,
        order.max_silence,
        order.max_epochs,
        order.epoch_fee,
        order.deadline,
        order.nonce,
    )


def _lease(params: LeaseParams) -> tuple[Any, ...]:
    return (
        _raw(params.job_id),
        params.tenant,
        params.watcher,
        params.provider,
        params.node,
        params.epoch,
        params.max_silence,
        params.rate,
        params.collateral,
        params.slot,
    )


def _permit(permit: Permit) -> tuple[Any, ...]:
    return (permit.value, permit.deadline, permit.v, permit.r, permit.s)


class EscrowCalls:
    """LeaseEscrow's calls. A ``receipt`` of None means none (it is then signed by nobody)."""

    def __init__(self, deployment: Deployment) -> None:
        self._to = deployment.escrow

    def _call(self, name: str, *arguments: Any) -> Call:
        return Call(self._to, encode_call("LeaseEscrow", name, *arguments), name)

    def fund(self, order: Order, signature: str, permit: Permit = NO_PERMIT) -> Call:
        """Create the job's escrow; by the tenant, or by anyone who has the tenant's signature."""
        return self._call("fund", _order(order), _raw(signature), _permit(permit))

    def top_up(self, job_id: str, amount: int, permit: Permit = NO_PERMIT) -> Call:
        """Add escrow from the caller."""
        return self._call("topUp", _raw(job_id), amount, _permit(permit))

    def cancel(self, order: Order) -> Call:
        """No further leases; by the tenant."""
        return self._call("cancel", _order(order))

    def extend(self, order: Order, deadline: int, max_epochs: int, max_rate_per_hour: int) -> Call:
        """Raise the order's limits; by the tenant."""
        return self._call("extend", _order(order), deadline, max_epochs, max_rate_per_hour)

    def refund(self, order: Order) -> Call:
        """Credit the tenant with what no lease has set aside."""
        return self._call("refund", _order(order))

    def open(self, order: Order, bid: Bid, signature: str, rate: int) -> Call:
        """Open the job's next lease; by watcher or tenant."""
        values = (
            bid.provider,
            bid.node,
            _raw(bid.order_hash),
            bid.epoch,
            bid.min_rate_per_hour,
            bid.collateral,
            bid.deadline,
            bid.slot,
        )
        return self._call("open", _order(order), values, _raw(signature), rate)

    def collect(self, lease: LeaseParams, receipt: Receipt, signature: str) -> Call:
        """Credit the provider up to the receipt's earned seconds."""
        return self._call("collect", _lease(lease), _receipt(receipt), _raw(signature))

    def close(self, lease: LeaseParams, receipt: Receipt | None = None, signature: str = "0x") -> Call:
        """End an active lease."""
        return self._call("close", _lease(lease), _receipt(receipt or NO_RECEIPT), _raw(signature))

    def notice(self, lease: LeaseParams) -> Call:
        """The provider's way out."""
        return self._call("notice", _lease(lease))

    def suspend(self, lease: LeaseParams, receipt: Receipt | None = None, signature: str = "0x") -> Call:
        """Dispute a silent provider's lease; by watcher or tenant."""
        return self._call("suspend", _lease(lease), _receipt(receipt or NO_RECEIPT), _raw(signature))

    def answer(self, lease: LeaseParams, receipt: Receipt | None = None, signature: str = "0x") -> Call:
        """Answer a suspension."""
        return self._call("answer", _lease(lease), _receipt(receipt or NO_RECEIPT), _raw(signature))

    def fail(self, lease: LeaseParams) -> Call:
        """Fail a suspended lease after its window; by anyone."""
        return self._call("fail", _lease(lease))

    def sweep_fees(self, job_id: str) -> Call:
        """Credit the treasury with the fees withheld in the job's ended leases; by anyone."""
        return self._call("sweepFees", _raw(job_id))

    def withdraw(self, to: str) -> Call:
        """Send the caller's claimable amount to ``to``."""
        return self._call("withdraw", to)

    def multicall(self, calls: Sequence[Call]) -> Call:
        """Several of these calls in one transaction, all or none."""
        name = "+".join(call.name for call in calls)
        return Call(self._to, encode_call("LeaseEscrow", "multicall", [call.data for call in calls]), name)


class StakingCalls:
    """ProviderStaking's calls."""

    def __init__(self, deployment: Deployment) -> None:
        self._to = deployment.staking

    def _call(self, name: str, *arguments: Any) -> Call:
        return Call(self._to, encode_call("ProviderStaking", name, *arguments), name)

    def stake(self, amount: int, permit: Permit = NO_PERMIT) -> Call:
        """Add stake for the caller."""
        return self._call("stake", amount, _permit(permit))

    def request_unstake(self, amount: int) -> Call:
        """Start the unbonding of a part of the caller's stake."""
        return self._call("requestUnstake", amount)

    def withdraw(self, to: str) -> Call:
        """Send what has unbonded to ``to``."""
        return self._call("withdraw", to)

    def authorise_node(self, auth: NodeAuth, signature: str) -> Call:
        """Bind a node to the caller, with the node's consent."""
        return self._call("authoriseNode", (auth.provider, auth.node, auth.deadline, auth.nonce), _raw(signature))

    def revoke_node(self, node: str) -> Call:
        """Unbind a node."""
        return self._call("revokeNode", node)

    def set_metadata(self, cid: str) -> Call:
        """Announce the provider's description."""
        return self._call("setMetadata", cid)


class AssetCalls:
    """The asset's calls; ``mint`` exists on development chains' mock dollar only."""

    def __init__(self, deployment: Deployment) -> None:
        self._to = deployment.asset

    def _call(self, name: str, *arguments: Any) -> Call:
        return Call(self._to, encode_call("MockDollar", name, *arguments), name)

    def approve(self, spender: str, value: int) -> Call:
        """Set an allowance of the caller."""
        return self._call("approve", spender, value)

    def transfer(self, to: str, value: int) -> Call:
        """Send tokens of the caller."""
        return self._call("transfer", to, value)

    def mint(self, account: str, value: int) -> Call:
        """Create tokens (mock only)."""
        return self._call("mint", account, value)


def sign_permit(
    chain: ChainReader, deployment: Deployment, owner: str, spender: str, value: int, deadline: int, sign: Sign
) -> Permit:
    """An EIP-2612 permit of ``owner``; the token's nonce and domain (EIP-5267) are read from the chain."""

    def view(name: str, *arguments: Any) -> tuple[Any, ...]:
        data = chain.call(deployment.asset, encode_call("MockDollar", name, *arguments))
        return decode_result("MockDollar", name, data)

    _, name, version, *_ = view("eip712Domain")
    wanted = TokenPermit(owner, spender, value, view("nonces", owner)[0], deadline)
    raw = _raw(sign(permit_digest(deployment.chain_id, deployment.asset, name, version, wanted)))
    return Permit(value, deadline, raw[64], raw[:32], raw[32:64])
