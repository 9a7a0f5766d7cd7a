"""A wallet's own transactions about escrow and earnings."""

from everlease.chain._generated.events import StakeWithdrawn, Withdrawn
from everlease.chain.errors import CallReverted
from everlease.chain.typed_data import job_id, order_digest, verify
from everlease.chain.views import LimitsOnChain
from everlease.cli.context import Wallet
from everlease.cli.errors import CliError, ExitCode
from everlease.domain.jobspec import spec_hash
from everlease.domain.money import from_units
from everlease.domain.terms import Order
from everlease.wire.http import JobOut

_NOTHING_YET = {"StillUnbonding", "NothingToWithdraw"}


def own_order(wallet: Wallet, job: JobOut) -> Order:
    """The order of a job as the marketplace tells it, if it is this wallet's and the one that the job's id names.

    Raises CliError else: what is sent on chain rests on the id, not on the marketplace's word. The name rests on it as
    well: the order holds the hash of the spec, which holds the name.
    """
    order = job.order.to_domain()
    if order.tenant.lower() != wallet.address.lower():
        raise CliError(ExitCode.REFUSED, f"job {job.id} is {order.tenant}'s, your wallet is {wallet.address}")
    if job_id(wallet.deployment.escrow_domain, order) != job.id:
        raise CliError(
            ExitCode.REFUSED, f"the marketplace's order for job {job.id} is of another job: nothing was sent"
        )
    spec = job.spec.to_domain()
    if spec_hash(spec) != order.job_spec or spec.name != job.name:
        raise CliError(ExitCode.REFUSED, f"job {job.id} is not the one that was named {job.name}: nothing was sent")
    return order


def require_signature(wallet: Wallet, job: JobOut) -> None:
    """The wallet itself signed the job's order: else a marketplace could name any order to be paid. Raises CliError."""
    digest = order_digest(wallet.deployment.escrow_domain, job.order.to_domain())
    if not job.order_signature or not verify(digest, wallet.address, job.order_signature, wallet.chain):
        raise CliError(ExitCode.REFUSED, f"your wallet did not sign the order of job {job.id}: nothing was paid")


def deposit_of(job: str, order: Order) -> str:
    """The payment of an order's deposit, in words."""
    return f"deposit of {from_units(order.deposit)} for job {job}"


def fund(wallet: Wallet, order: Order) -> str | None:
    """Pay an order's deposit; returns the transaction's hash, None where the escrow has it. Raises CliError."""
    job = job_id(wallet.deployment.escrow_domain, order)
    escrow, intent = wallet.deployment.escrow, deposit_of(job, order)
    with wallet.turn():
        done = wallet.settle(intent)
        if done is not None:
            return done.tx_hash
        known = wallet.views.job(job)
        if known.funded:
            return None
        if known.cancelled:
            raise CliError(ExitCode.REFUSED, f"job {job} was cancelled on chain: launch it anew")
        return wallet.pay(intent, escrow, order.deposit, lambda permit: wallet.escrow.fund(order, "0x", permit)).tx_hash


def top_up(wallet: Wallet, job: str, units: int) -> str:
    """Add base units to a job's escrow; returns the transaction's hash. Raises CliError."""
    known = wallet.views.job(job)
    if not known.funded:
        raise CliError(ExitCode.REFUSED, f"job {job} has no deposit yet: 'everlease job fund {job}' pays it")
    if known.cancelled:
        raise CliError(ExitCode.REFUSED, f"job {job} was cancelled on chain and takes no money: launch it anew")
    escrow, intent = wallet.deployment.escrow, f"{from_units(units)} more for job {job}"
    return wallet.pay(intent, escrow, units, lambda permit: wallet.escrow.top_up(job, units, permit)).tx_hash


def extend(
    wallet: Wallet, order: Order, deadline: int | None, leases: int | None, rate_per_hour: int | None
) -> tuple[LimitsOnChain, str | None]:
    """Raise an order's limits; None keeps one as it is. Returns the limits that hold then, and the transaction's hash,
    None where nothing had to be sent. Raises CliError where a limit would fall or the deadline is too far."""
    job = job_id(wallet.deployment.escrow_domain, order)
    with wallet.turn():
        wallet.settle()
        known, old = wallet.views.job(job), wallet.views.limits(order)
        if not known.funded:
            raise CliError(ExitCode.REFUSED, f"job {job} has no deposit yet: 'everlease job fund {job}' pays it")
        if known.cancelled:
            raise CliError(ExitCode.REFUSED, f"job {job} was cancelled on chain: launch it anew")
        new = raised(wallet, old, deadline, leases, rate_per_hour)
        if new == old:
            return old, None
        call = wallet.escrow.extend(order, new.deadline, new.max_epochs, new.max_rate_per_hour)
        return new, wallet.send(f"extension of job {job}", call).tx_hash


def raised(
    wallet: Wallet, old: LimitsOnChain, deadline: int | None, leases: int | None, rate_per_hour: int | None
) -> LimitsOnChain:
    """An order's limits as an extension would leave them; None keeps one. Raises CliError where the escrow would not
    take it: a limit would fall, or the deadline is too far.
    """
    new = LimitsOnChain(
        old.deadline if deadline is None else deadline,
        old.max_epochs if leases is None else leases,
        old.max_rate_per_hour if rate_per_hour is None else rate_per_hour,
    )
    if new == old:
        return old
    _check_rise(old, new)
    latest = wallet.chain_time() + wallet.deployment.terms.max_lifetime
    if new.deadline > latest:
        raise CliError(ExitCode.INVALID, f"the deadline would be {new.deadline}, the latest is {latest}: ask for less")
    return new


def _check_rise(old: LimitsOnChain, new: LimitsOnChain) -> None:
    for name, wanted, present, shown in (
        ("deadline", new.deadline, old.deadline, str),
        ("number of leases", new.max_epochs, old.max_epochs, str),
        ("highest price an hour", new.max_rate_per_hour, old.max_rate_per_hour, from_units),
    ):
        if wanted < present:
            raise CliError(ExitCode.INVALID, f"the {name} is {shown(present)} and can't be lowered to {shown(wanted)}")


def refund_and_withdraw(wallet: Wallet, order: Order) -> int:
    """Credit what no lease has set aside and send it to the wallet; returns base units."""
    job = job_id(wallet.deployment.escrow_domain, order)
    wallet.send(f"refund of job {job}", wallet.escrow.refund(order))
    return withdraw(wallet)


def withdraw(wallet: Wallet) -> int:
    """Send all that is claimable to the wallet itself; returns the base units sent, zero where there is nothing."""
    intent = "withdrawal of earnings"
    with wallet.turn():
        done = wallet.settle(intent)
        if done is None and not wallet.views.claimable(wallet.address):
            return 0
        return wallet.moved(done or wallet.send(intent, wallet.escrow.withdraw(wallet.address)), Withdrawn)


def withdraw_stake(wallet: Wallet) -> int:
    """Send the wallet what of its stake has unbonded; returns the base units sent, zero where there is nothing yet."""
    try:
        return wallet.moved(wallet.send("withdrawal of stake", wallet.staking.withdraw(wallet.address)), StakeWithdrawn)
    except CallReverted as error:
        if error.name in _NOTHING_YET:
            return 0
        raise
