"""What a deployment will do, found without sending anything: who pays, what is created where, and on which terms."""

from collections.abc import Iterator
from dataclasses import astuple, dataclass
from typing import Any

from everlease.chain.abi import decode_result, encode_call, encode_constructor
from everlease.chain.base import ChainWriter, Fees
from everlease.chain.bytecode import created_address, staking_address
from everlease.chain.deployment import Terms
from everlease.chain.errors import BadAnswer, CallReverted, ChainError
from everlease.chain.offers import market_offer
from everlease.domain.transactions import FeeOffer

_GAS_RESERVE = 115
"""Gas limit in percent of the estimate; a constructor's gas hardly depends on the state."""


class Unsuitable(ChainError):
    """Something that this deployment can't be made with; the sentence says what."""


@dataclass(frozen=True, slots=True)
class Asset:
    """The ERC-20 that is settled in. ``permit``: it answers as EIP-2612 has it."""

    address: str
    symbol: str
    decimals: int
    permit: bool


@dataclass(frozen=True, slots=True)
class Step:
    """One contract to create: at ``nonce`` of the deployer, hence at ``address``. ``gas`` is the limit."""

    contract: str
    nonce: int
    address: str
    code: bytes
    gas: int


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that is known before the first transaction. Wei and base units."""

    chain_id: int
    deployer: str
    balance: int
    asset: Asset
    terms: Terms
    steps: tuple[Step, ...]
    fees: Fees

    @property
    def nonce(self) -> int:
        """The deployer's first nonce that is used."""
        return self.steps[0].nonce

    @property
    def escrow(self) -> str:
        """Where LeaseEscrow will be."""
        return self.steps[-1].address

    @property
    def staking(self) -> str:
        """Where ProviderStaking will be."""
        return staking_address(self.escrow)

    @property
    def offer(self) -> FeeOffer:
        """What each transaction offers."""
        return market_offer(self.fees)

    @property
    def gas(self) -> int:
        """Gas of all steps together, at most."""
        return sum(step.gas for step in self.steps)


def make_plan(chain: ChainWriter, deployer: str, terms: Terms, asset: str | None) -> Plan:
    """Look at everything; a mock dollar comes first where ``asset`` is None. Raises Unsuitable."""
    deployer, nonce = deployer.lower(), chain.nonce(deployer)
    steps: list[Step] = []
    if asset is None:
        steps.append(_step(chain, deployer, "MockDollar", nonce, encode_constructor("MockDollar")))
        found = Asset(steps[0].address, "mUSD", 6, permit=True)
    else:
        found = look_at_asset(chain, asset, deployer)
    code = encode_constructor("LeaseEscrow", found.address, astuple(terms))
    steps.append(_step(chain, deployer, "LeaseEscrow", nonce + len(steps), code))
    plan = Plan(chain.chain_id(), deployer, chain.balance(deployer), found, terms, tuple(steps), chain.fees())
    if plan.balance < plan.gas * plan.offer.max_fee:
        most = ether(plan.gas * plan.offer.max_fee)
        raise Unsuitable(f"{deployer} has {ether(plan.balance)} ETH, and the deployment may cost {most} ETH")
    return plan


def look_at_asset(chain: ChainWriter, address: str, holder: str) -> Asset:
    """Raises Unsuitable where there is no ERC-20 that says its symbol and decimals."""
    address = address.lower()
    if not chain.code(address):
        raise Unsuitable(f"the asset {address} is not a contract on this chain")

    def ask(name: str, *arguments: Any) -> Any:
        return decode_result("MockDollar", name, chain.call(address, encode_call("MockDollar", name, *arguments)))[0]

    try:
        symbol, decimals = ask("symbol"), ask("decimals")
        ask("balanceOf", holder)
    except (CallReverted, BadAnswer) as error:
        raise Unsuitable(f"the asset {address} does not answer as an ERC-20 does") from error
    try:
        ask("DOMAIN_SEPARATOR")
        ask("nonces", holder)
    except (CallReverted, BadAnswer):
        return Asset(address, symbol, decimals, permit=False)
    return Asset(address, symbol, decimals, permit=True)


def _step(chain: ChainWriter, deployer: str, contract: str, nonce: int, code: bytes) -> Step:
    try:
        gas = chain.estimate_gas(deployer, None, code)
    except CallReverted as error:
        raise Unsuitable(f"{contract}'s constructor refuses this: {_in_words(error)}") from error
    return Step(contract, nonce, created_address(deployer, nonce), code, gas * _GAS_RESERVE // 100)


def _in_words(error: CallReverted) -> str:
    """The contract's error; a bytes32 is the name of a field."""
    values = {
        key: bytes.fromhex(value[2:]).rstrip(b"\0").decode("ascii", "replace")
        if isinstance(value, str) and len(value) == 66
        else value
        for key, value in error.values.items()
    }
    return f"{error.name}({', '.join(f'{key}={value}' for key, value in values.items())})"


# -- for people --


def describe(plan: Plan, network: str) -> Iterator[str]:
    """The plan, line by line."""
    asset, fees = plan.asset, plan.fees
    yield f"network    {network}, chain {plan.chain_id}"
    yield f"deployer   {plan.deployer}, nonce {plan.nonce}, {ether(plan.balance)} ETH"
    if plan.steps[0].contract == "MockDollar":
        yield f"asset      a mock dollar that anyone may mint, to be deployed at {asset.address}"
    else:
        permit = "with" if asset.permit else "WITHOUT"
        yield f"asset      {asset.address}: {asset.symbol}, {asset.decimals} decimals, {permit} EIP-2612"
        yield "           it must take no fee on transfers, which only a transfer shows: make one first"
    yield "terms"
    for label, value in _terms(plan.terms, asset):
        yield f"  {label:<17} {value}"
    yield f"contracts  LeaseEscrow      {plan.escrow}"
    yield f"           ProviderStaking  {plan.staking}, created by the escrow"
    now = plan.gas * (fees.base_fee + fees.priority_fee)
    yield (
        f"cost       at most {plan.gas:,} gas: {ether(now)} ETH at present ({_gwei(fees.base_fee)} gwei and "
        f"{_gwei(fees.priority_fee)} for the proposer), never more than {ether(plan.gas * plan.offer.max_fee)} ETH"
    )


def _terms(terms: Terms, asset: Asset) -> Iterator[tuple[str, str]]:
    yield "answer window", _duration(terms.answer_window)
    yield "minimum runtime", _duration(terms.min_runtime)
    yield "unbonding period", _duration(terms.unbonding_period)
    yield "longest lifetime", _duration(terms.max_lifetime)
    yield "silence allowed", f"{_duration(terms.min_silence)} to {_duration(terms.max_silence)}"
    yield "fee", _percent(terms.fee_bps)
    yield "drop penalty", f"{_percent(terms.drop_penalty_bps)} of the collateral"
    rest = 10_000 - terms.slash_to_job_bps - terms.slash_to_caller_bps
    yield (
        "of a slash",
        (
            f"{_percent(terms.slash_to_job_bps)} to the job, {_percent(terms.slash_to_caller_bps)} to the caller, "
            f"{_percent(rest)} to the insurance"
        ),
    )
    yield "bond", f"{decimal(terms.bond, asset.decimals)} {asset.symbol}"
    yield "treasury", terms.treasury
    yield "insurance", terms.insurance


def _duration(seconds: int) -> str:
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size and seconds % size == 0:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


def _percent(bps: int) -> str:
    return f"{decimal(bps, 2)} %"


def decimal(amount: int, decimals: int) -> str:
    """Base units as a decimal number without trailing zeros."""
    whole, part = divmod(amount, 10**decimals)
    return f"{whole}.{part:0{decimals}d}".rstrip("0").rstrip(".") if decimals else str(whole)


def ether(wei: int) -> str:
    """Wei as ether, six decimals, rounded up: for costs and balances."""
    return decimal(-(-wei // 10**12), 6)


def _gwei(wei: int) -> str:
    return decimal(wei // 10**6, 3)
