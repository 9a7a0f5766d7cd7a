"""Checks of a signed order before it becomes a job: each failure is one sentence that says what to change."""

from dataclasses import dataclass, replace

from everlease.chain import typed_data
from everlease.chain.base import ChainReader
from everlease.chain.deployment import Deployment
from everlease.chain.views import Views
from everlease.domain import jobspec
from everlease.domain.jobspec import JobSpec
from everlease.domain.money import from_units
from everlease.domain.silence import too_short
from everlease.domain.terms import UNSERVED_SHARE, Order, least_deposit
from everlease.wire.http import JobRequest
from marketplace.problems import ProblemError


@dataclass(frozen=True, slots=True)
class CheckedOrder:
    """An order that can be accepted; its digest is the job's id."""

    job_id: str
    order: Order
    spec: JobSpec
    funded: bool


class OrderDesk:
    """Checks orders against one deployment; ``watcher`` is the only one this marketplace serves, for ``min_epoch_fee``
    base units a lease at least.
    """

    def __init__(self, deployment: Deployment, chain: ChainReader, watcher: str, min_epoch_fee: int = 0) -> None:
        self._deployment = deployment
        self._chain = chain
        self._views = Views(chain, deployment)
        self._watcher = watcher.lower()
        self._min_epoch_fee = min_epoch_fee

    def check(self, request: JobRequest, caller: str, now: float) -> CheckedOrder:
        """Everything that can be wrong with an order; raises ProblemError."""
        order, spec = normalised(request.order.to_domain()), request.spec.to_domain()
        self._check_parties(order, caller)
        self._check_terms(order, now)
        expected = jobspec.spec_hash(spec)
        if order.job_spec != expected:
            raise _refused("spec-mismatch", f"the order's job_spec is {order.job_spec}, the spec hashes to {expected}")
        self._check_signature(order, request.order_signature)
        job_id = typed_data.job_id(self._deployment.escrow_domain, order)
        on_chain = self._views.job(job_id)
        if not on_chain.funded:
            if on_chain.cancelled:
                raise _refused("order-revoked", "this order was cancelled on chain: sign one with another nonce")
            self._check_money(order, request)
        return CheckedOrder(job_id, order, spec, on_chain.funded)

    def _check_parties(self, order: Order, caller: str) -> None:
        if order.tenant != caller:
            raise ProblemError(403, "not-the-tenant", f"the order is {order.tenant}'s, you are signed in as {caller}")
        if order.watcher != self._watcher:
            raise _refused("wrong-watcher", f"the order names watcher {order.watcher}, this one is {self._watcher}")

    def _check_terms(self, order: Order, now: float) -> None:
        terms = self._deployment.terms
        if order.deadline <= now:
            raise _refused("order-expired", f"the order expired at {order.deadline}: sign one with a later deadline")
        if order.deadline > now + terms.max_lifetime:
            latest = int(now) + terms.max_lifetime
            raise _refused("deadline-too-far", f"the order's deadline is {order.deadline}, the latest is {latest}")
        if not terms.min_silence <= order.max_silence <= terms.max_silence:
            bounds = f"{terms.min_silence} to {terms.max_silence} s"
            raise _refused("silence-out-of-bounds", f"max_silence is {order.max_silence} s, allowed are {bounds}")
        if (short := too_short(order.max_silence)) is not None:
            raise _refused("silence-out-of-bounds", short)
        if order.deposit == 0 or order.max_rate_per_hour == 0:
            raise _refused("empty-order", "deposit and max_rate_per_hour have to be above zero")
        if order.epoch_fee < self._min_epoch_fee:
            raise _refused(
                "epoch-fee-too-small",
                f"the order's epoch_fee is {from_units(order.epoch_fee)}, at least {from_units(self._min_epoch_fee)} "
                "is asked for each lease",
            )
        least = least_deposit(order, terms.bond, terms.min_runtime)
        if order.deposit < least:
            raise _refused(
                "deposit-too-small",
                f"a deposit of {from_units(order.deposit)} can't open a lease at the order's rate: "
                f"put in at least {from_units(least)}",
            )
        if order.epoch_fee * UNSERVED_SHARE > order.deposit:
            raise _refused(
                "fee-too-large",
                f"the fee of one lease, {from_units(order.epoch_fee)}, is more than 5 % of the deposit: "
                f"put in at least {from_units(order.epoch_fee * UNSERVED_SHARE)}",
            )

    def _check_signature(self, order: Order, signature: str) -> None:
        domain = self._deployment.escrow_domain
        if not typed_data.verify(typed_data.order_digest(domain, order), order.tenant, signature, self._chain):
            raise _refused(
                "wrong-order-signature",
                f"the signature is not {order.tenant}'s over this order for chain {domain.chain_id} and escrow "
                f"{domain.contract}: an order signed for another chain or contract doesn't count here",
            )

    def _check_money(self, order: Order, request: JobRequest) -> None:
        balance = self._views.asset_balance(order.tenant)
        if balance < order.deposit:
            raise _refused(
                "deposit-above-balance",
                f"the deposit is {from_units(order.deposit)}, {order.tenant} holds {from_units(balance)}",
            )
        if request.funding == "allowance":
            allowed = self._views.allowance(order.tenant, self._deployment.escrow)
            if allowed < order.deposit:
                raise _refused(
                    "deposit-above-allowance",
                    f"the deposit is {from_units(order.deposit)}, the escrow may take {from_units(allowed)}: "
                    "approve more or fund with a permit",
                )


def normalised(order: Order) -> Order:
    """The same order with its addresses in lower case; its digest doesn't change."""
    return replace(order, tenant=order.tenant.lower(), watcher=order.watcher.lower())


def _refused(slug: str, detail: str) -> ProblemError:
    return ProblemError(422, slug, detail)
