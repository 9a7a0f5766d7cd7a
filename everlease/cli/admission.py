"""What a launch checks before it uploads anything: market, money, deadline, price, and whether a host could take it."""

from collections.abc import Callable, Iterator

from everlease.chain.offers import market_offer
from everlease.cli.context import Wallet
from everlease.cli.errors import CliError, ExitCode
from everlease.cli.market import Market
from everlease.domain import compat
from everlease.domain.jobspec import JobSpec
from everlease.domain.money import from_units
from everlease.domain.terms import Order, least_deposit
from everlease.wire.http import MarketOut, NodeList, NodeOut

FUND_GAS = 250_000
"""At least the gas limit of a `fund` with a permit, 5/4 of what it takes: tests/contracts/gas/Gas.t.sol bounds the call
at 90,000, and a transaction's own cost and its data come on top."""
MAX_DEPOSIT = 2**95 - 1
"""LeaseEscrow's MAX_BALANCE."""


def check_market(market: MarketOut, wallet: Wallet) -> None:
    """Market, chain and contracts belong together. Raises CliError."""
    deployment = wallet.deployment
    if (market.chain_id, market.escrow.lower()) != (deployment.chain_id, deployment.escrow):
        raise CliError(
            ExitCode.REFUSED,
            f"the marketplace works with escrow {market.escrow} on chain {market.chain_id}, your wallet with "
            f"{deployment.escrow} on chain {deployment.chain_id}: name the deployments file and RPC of this market",
        )


def check_order(order: Order, wallet: Wallet, now: int) -> None:
    """Deposit, deadline and price as the contract and the marketplace want them. Raises CliError."""
    terms = wallet.deployment.terms
    if order.deposit > MAX_DEPOSIT or order.max_rate_per_hour > MAX_DEPOSIT:
        raise CliError(ExitCode.INVALID, f"deposit and max_price_per_hour are at most {from_units(MAX_DEPOSIT)}")
    least = least_deposit(order, terms.bond, terms.min_runtime)
    if order.deposit < least:
        raise CliError(
            ExitCode.MONEY,
            f"deposit: {from_units(order.deposit)} can't open a lease at max_price_per_hour "
            f"{from_units(order.max_rate_per_hour)}: put in at least {from_units(least)}, or lower the price",
        )
    lifetime, chain_time = order.deadline - now, wallet.chain_time()
    if lifetime < terms.min_runtime:
        raise CliError(ExitCode.INVALID, f"lifetime: {lifetime} s is too short: give at least {terms.min_runtime} s")
    if order.deadline > min(now, chain_time) + terms.max_lifetime:
        longest = min(now, chain_time) + terms.max_lifetime - now
        raise CliError(ExitCode.INVALID, f"lifetime: {lifetime} s is too long: give at most {longest} s")
    if order.deadline <= chain_time:
        raise CliError(
            ExitCode.INVALID, f"lifetime: the chain's clock is {chain_time - now} s ahead of yours: give more than that"
        )


def check_money(order: Order, wallet: Wallet) -> None:
    """The wallet can pay deposit and gas. Raises CliError."""
    wallet.require_balance(order.deposit)
    # What is offered, not what it will cost: a node asks the account for the whole of it.
    needed, held = FUND_GAS * market_offer(wallet.chain.fees()).max_fee, wallet.chain.balance(wallet.address)
    if held < needed:
        raise CliError(
            ExitCode.MONEY,
            f"the wallet {wallet.address} holds {held} wei for gas, paying the deposit takes about {needed}: send it "
            "some of the chain's coin",
        )


def check_capacity(market: Market, spec: JobSpec, note: Callable[[str], None], *, queue: bool) -> None:
    """A host that the market knows is large enough; CliError where none is, unless the job shall ``queue``.

    That all such hosts are busy, away or can't make its checkpoints now is noted: the job waits for one.
    """
    reasons, suitable = list[str](), 0
    for node in _nodes(market):
        reason = _why_not(node, spec)
        if reason is not None:
            reasons.append(reason)
        elif _is_ready(node, spec):
            return
        else:
            suitable += 1
    if not suitable and reasons and not queue:
        raise CliError(
            ExitCode.UNAVAILABLE,
            f"no host of this market is large enough, of {len(reasons)} that it knows ({_commonest(reasons)}): ask for "
            "less, or launch with --queue to wait for such a host",
        )
    note("no host can take this job now: it will wait for one")


def _nodes(market: Market) -> Iterator[NodeOut]:
    cursor: str | None = None
    while True:
        page = market.get("/v1/nodes", NodeList, signed_in=False, params={"cursor": cursor, "limit": 200})
        yield from page.items
        cursor = page.next_cursor
        if cursor is None:
            return


def _why_not(node: NodeOut, spec: JobSpec) -> str | None:
    try:
        return compat.lacks(node.facts, spec.resources)
    except (KeyError, TypeError, ValueError) as error:
        return f"its facts are incomplete ({error})"


def _is_ready(node: NodeOut, spec: JobSpec) -> bool:
    if not node.connected or node.draining:
        return False
    try:
        return not spec.checkpoint.strict or compat.unproved(node.facts, spec) is None
    except (KeyError, TypeError, ValueError):
        return False


def _commonest(reasons: list[str]) -> str:
    return max(set(reasons), key=reasons.count)
