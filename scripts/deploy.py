"""Deploy Everlease with ape, see beforehand what that would do, or check what was deployed.

    ape run deploy --network ethereum:sepolia:node --account deployer --asset 0x... --dry-run
    ape run deploy --network ethereum:sepolia:node --account deployer --asset 0x... --out deployments.json
    ape run deploy --network ethereum:sepolia:node --verify deployments.json
    ape run deploy --network ethereum:local:foundry --out deployments.json

Deploys the committed, checked bytecode (everlease/chain/_generated), so nothing is compiled here. A mock dollar is
deployed only where no asset is named and the network is a development chain. An interrupted run is taken up where it
stopped by the same command: nothing is deployed twice. Of two runs to the same file at once the second ends.
"""

import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import msgspec
from ape import accounts, networks
from ape.api import AccountAPI
from ape.cli import ConnectedProviderCommand
from eth_utils import is_address

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from everlease.chain.answers import ANYTHING, Item, result_of  # noqa: E402
from everlease.chain.deploy_lock import only_one  # noqa: E402
from everlease.chain.deploy_plan import describe, make_plan  # noqa: E402
from everlease.chain.deploy_run import DeploymentFailed, Pending, Run  # noqa: E402
from everlease.chain.deployment import Terms, camel  # noqa: E402
from everlease.chain.errors import ChainError, RpcUnavailable  # noqa: E402
from everlease.chain.rpc import RpcChain  # noqa: E402
from everlease.chain.verification import verify as verify_file  # noqa: E402

Json = dict[str, Any]


@dataclass(frozen=True)
class Options:
    """What was given on the command line or in the environment."""

    account: str | None
    asset: str | None
    terms: Path | None
    treasury: str | None
    insurance: str | None
    out: Path
    dry_run: bool
    yes: bool
    force: bool
    confirmations: int | None
    timeout: float
    verify: Path | None


def _item(answer: Mapping[str, Any]) -> Item:
    result = msgspec.Raw(json.dumps(answer["result"]).encode()) if "result" in answer else msgspec.UNSET
    return Item(result=result, error=answer.get("error"))


class ApeRpc:
    """JSON-RPC through the provider that ape is connected to."""

    def call(self, method: str, *params: Any, into: msgspec.json.Decoder[Any] = ANYTHING) -> Any:
        answer = self.batch([(method, params)], into=into)[0]
        if isinstance(answer, ChainError):
            raise answer
        return answer

    def batch(
        self, calls: Sequence[tuple[str, Sequence[Any]]], *, into: msgspec.json.Decoder[Any] = ANYTHING
    ) -> list[Any]:
        provider = networks.provider.web3.provider
        try:
            answers = [(method, provider.make_request(method, list(params))) for method, params in calls]
        except OSError as error:
            raise RpcUnavailable(calls[0][0], str(error)) from error
        return [result_of(method, _item(answer), into) for method, answer in answers]

    def close(self) -> None:
        return


class ApeSigner:
    """The deployer's account; ape asks for the passphrase where it needs it."""

    def __init__(self, account: AccountAPI) -> None:
        self._account = account
        self.address = str(account.address)

    def sign(self, fields: Mapping[str, Any]) -> bytes:
        transaction = networks.ecosystem.create_transaction(type=2, sender=self.address, value=0, **fields)
        signed = self._account.sign_transaction(transaction)
        if signed is None:
            raise DeploymentFailed("the account's owner did not sign: nothing was sent")
        return bytes(signed.serialize_transaction())


def deployer(alias: str | None, is_dev: bool) -> AccountAPI:
    """The named keystore account; on a development chain the first test account by default."""
    if alias is None:
        if not is_dev:
            raise click.UsageError("name the deployer's keystore with --account (see `ape accounts list`)")
        return accounts.test_accounts[0]
    if alias not in accounts.aliases:
        raise click.UsageError(f"ape has no account {alias}: import it with `ape accounts import {alias}`")
    return accounts.load(alias)


def unlock(account: AccountAPI, alias: str | None) -> None:
    """Take the passphrase from the environment where it is, as ape's own commands do."""
    passphrase = os.environ.get(f"APE_ACCOUNTS_{alias}_PASSPHRASE") if alias else None
    if passphrase:
        account.set_autosign(True, passphrase=passphrase)


def read_terms(path: Path | None, treasury: str, insurance: str) -> Terms:
    """The deployment's immutable terms: scripts/terms.json, overridden by the file at `path`."""
    values: Json = json.loads((ROOT / "scripts" / "terms.json").read_text())
    values |= {"treasury": treasury, "insurance": insurance}
    try:
        values |= json.loads(path.read_text()) if path else {}
    except ValueError as error:
        raise click.UsageError(f"{path} is not JSON: {error}") from error
    known = {camel(name): name for name in Terms.__slots__}
    unknown = sorted(values.keys() - known.keys())
    if unknown:
        raise click.UsageError(f"unknown terms: {', '.join(unknown)}; known are {', '.join(known)}")
    for name, value in values.items():
        if name in ("treasury", "insurance"):
            if not (isinstance(value, str) and is_address(value)):
                raise click.UsageError(f"{name} is not an address: {value}")
            values[name] = value.lower()
        elif not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise click.UsageError(f"{name} is not a whole number: {value}")
    return Terms(**{known[name]: value for name, value in values.items()})


def check_out(out: Path, force: bool) -> None:
    """A deployments file that is there already is left alone."""
    if out.exists() and not force:
        raise click.UsageError(f"{out} holds a deployment: name another file with --out, or replace it with --force")


@click.command(cls=ConnectedProviderCommand)
@click.option("--account", envvar="EVERLEASE_DEPLOYER", help="ape account alias; a test account on development chains.")
@click.option("--asset", envvar="EVERLEASE_ASSET", help="ERC-20 to settle in; a mock dollar on development chains.")
@click.option("--terms", type=click.Path(exists=True, dir_okay=False, path_type=Path), envvar="EVERLEASE_TERMS")
@click.option("--treasury", envvar="EVERLEASE_TREASURY", help="Gets the fees; the deployer by default.")
@click.option("--insurance", envvar="EVERLEASE_INSURANCE", help="Gets the rest of slashes; the deployer by default.")
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    envvar="EVERLEASE_DEPLOYMENTS",
    default=Path("deployments.json"),
    show_default=True,
    help="Where the deployment is written, as JSON.",
)
@click.option("--dry-run", is_flag=True, help="Show what would be done and what it would cost; send nothing.")
@click.option("--yes", is_flag=True, help="Ask for no confirmation.")
@click.option("--force", is_flag=True, help="Replace the deployments file of another deployment.")
@click.option("--confirmations", type=click.IntRange(1), help="Blocks to wait for; 1 on development chains, else 3.")
@click.option("--timeout", type=click.FloatRange(1), default=900.0, show_default=True, help="Seconds to wait for each.")
@click.option(
    "--verify",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Check this deployments file against the chain, and do nothing else.",
)
def cli(**given: Any) -> None:
    """Deploy LeaseEscrow (which deploys ProviderStaking) and, if no asset is named, a mock dollar."""
    options = Options(**given)
    chain = RpcChain(ApeRpc())
    try:
        if options.verify is None:
            deploy(chain, options)
            return
        for line in verify_file(chain, options.verify):
            click.echo(f"ok  {line}")
    except ChainError as error:
        raise click.ClickException(str(error)) from error


def deploy(chain: RpcChain, options: Options) -> None:
    """Plan, ask, carry out. Raises ChainError with one sentence."""
    owner = deployer(options.account, networks.provider.network.is_dev)
    terms = read_terms(options.terms, options.treasury or owner.address, options.insurance or owner.address)
    with nullcontext() if options.dry_run else only_one(options.out):
        content = interrupted(options, terms) or planned(chain, options, owner, terms)
        if content is not None:
            carry_out(chain, options, owner, content)


def carry_out(chain: RpcChain, options: Options, owner: AccountAPI, content: Json) -> None:
    """Sign, send and wait; returns when the deployments file is written."""
    started, is_dev = time.monotonic(), networks.provider.network.is_dev
    unlock(owner, options.account)
    run = Run(
        chain,
        ApeSigner(owner),
        options.out,
        confirmations=options.confirmations or (1 if is_dev else 3),
        timeout_s=options.timeout,
        poll_s=0.05 if is_dev else 2.0,
        say=click.echo,
    )
    done = run.carry_out(content)
    escrow, seconds = done["contracts"]["LeaseEscrow"]["address"], time.monotonic() - started
    click.echo(f"LeaseEscrow at {escrow}, written to {options.out} ({seconds:.1f} s)")


def interrupted(options: Options, terms: Terms) -> Json | None:
    """The deployment that an earlier run began; it is finished as it was begun, or not at all."""
    pending = Pending(options.out)
    content = pending.load()
    if content is None:
        return None
    mocked = content["steps"][0]["contract"] == "MockDollar"
    asset = options.asset.lower() if options.asset else None
    if content["config"] != terms.as_config() or asset != (None if mocked else content["asset"]):
        raise DeploymentFailed(f"{pending.path} tells of a deployment on other terms: finish that with its own options")
    if options.dry_run:
        raise DeploymentFailed(f"{pending.path} tells of a deployment that was begun: without --dry-run it is finished")
    click.echo(f"going on with the deployment that {pending.path} tells of")
    return content


def planned(chain: RpcChain, options: Options, owner: AccountAPI, terms: Terms) -> Json | None:
    """A new deployment, shown and agreed to; None where it was only to be shown."""
    network = networks.provider.network
    if options.asset is None and not network.is_dev:
        raise click.UsageError("name the settlement token with --asset")
    if options.asset is not None and not is_address(options.asset):
        raise click.UsageError(f"--asset is not an address: {options.asset}")
    if not options.dry_run:
        check_out(options.out, options.force)
    plan = make_plan(chain, owner.address, terms, options.asset)
    for line in describe(plan, f"{networks.ecosystem.name}:{network.name}"):
        click.echo(line)
    if options.dry_run:
        click.echo("dry run: nothing was signed or sent")
        return None
    if not network.is_dev and not options.yes:
        click.confirm("Deploy this? The terms can't be changed afterwards", abort=True)
    return Pending(options.out).begin(plan)
