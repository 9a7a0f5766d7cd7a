"""Deploy Everlease with ape.

    ape run deploy --network ethereum:local:foundry --out deployments.json
    ape run deploy --network ethereum:sepolia:node --account deployer --asset 0x... --out deployments.json

Deploys the committed, checked bytecode (everlease/chain/_generated), so nothing is compiled here. A mock dollar is
deployed only where no asset is named and the network is a development chain.
"""

import json
import os
import time
from pathlib import Path
from typing import Any

import click
from ape import accounts, networks
from ape.api import AccountAPI
from ape.cli import ConnectedProviderCommand
from ape.contracts import ContractContainer, ContractInstance
from ape.logging import logger
from eth_utils import keccak
from ethpm_types import ContractType

ROOT = Path(__file__).resolve().parent.parent
ARTIFACTS = ROOT / "everlease" / "chain" / "_generated"
TERMS_ORDER = (
    "answerWindow",
    "minRuntime",
    "unbondingPeriod",
    "maxLifetime",
    "minSilence",
    "maxSilence",
    "feeBps",
    "dropPenaltyBps",
    "slashToJobBps",
    "slashToCallerBps",
    "bond",
    "treasury",
    "insurance",
)


def container(name: str) -> ContractContainer:
    """ape's view of a committed artifact."""
    artifact = json.loads((ARTIFACTS / f"{name}.json").read_text())
    contract_type = ContractType.model_validate(
        {
            "contractName": name,
            "abi": artifact["abi"],
            "deploymentBytecode": {"bytecode": artifact["bytecode"]},
        }
    )
    return ContractContainer(contract_type)


def deployer(alias: str | None, is_dev: bool) -> AccountAPI:
    """The named keystore account; on a development chain the first test account by default."""
    if alias:
        account = accounts.load(alias)
        passphrase = os.environ.get(f"APE_ACCOUNTS_{alias}_PASSPHRASE")
        if passphrase:
            account.set_autosign(True, passphrase=passphrase)
        return account
    if not is_dev:
        raise click.UsageError("name the deployer's keystore with --account (see `ape accounts list`)")
    return accounts.test_accounts[0]


def read_terms(path: Path | None, treasury: str, insurance: str) -> dict[str, Any]:
    """The deployment's immutable terms: scripts/terms.json, overridden by the file at `path`."""
    terms = json.loads((ROOT / "scripts" / "terms.json").read_text())
    terms |= {"treasury": treasury, "insurance": insurance}
    terms |= json.loads(path.read_text()) if path else {}
    unknown = sorted(terms.keys() - set(TERMS_ORDER))
    if unknown:
        raise click.UsageError(f"unknown terms: {', '.join(unknown)}; known are {', '.join(TERMS_ORDER)}")
    return {name: terms[name] for name in TERMS_ORDER}


def code_hash(address: str) -> str:
    code: bytes = networks.provider.get_code(address)
    return "0x" + keccak(code).hex()


def mined_in(instance: ContractInstance) -> int:
    return int(networks.provider.get_receipt(instance.txn_hash).block_number)


def record(instance: ContractInstance, block: int) -> dict[str, Any]:
    return {"address": instance.address, "codeHash": code_hash(instance.address), "block": block}


def write_atomically(path: Path, content: dict[str, Any]) -> None:
    """Readers see the whole file or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}.partial")
    partial.write_text(json.dumps(content, indent=2) + "\n")
    partial.replace(path)


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
def cli(
    account: str | None,
    asset: str | None,
    terms: Path | None,
    treasury: str | None,
    insurance: str | None,
    out: Path,
) -> None:
    """Deploy LeaseEscrow (which deploys ProviderStaking) and, if no asset is named, a mock dollar."""
    started = time.monotonic()
    is_dev = networks.provider.network.is_dev
    owner = deployer(account, is_dev)
    chosen = read_terms(terms, treasury or owner.address, insurance or owner.address)
    contracts: dict[str, Any] = {}
    if asset is None:
        if not is_dev:
            raise click.UsageError("name the settlement token with --asset")
        dollar = owner.deploy(container("MockDollar"))
        contracts["MockDollar"] = record(dollar, mined_in(dollar))
        asset = dollar.address
    escrow = owner.deploy(container("LeaseEscrow"), asset, tuple(chosen.values()))
    block = mined_in(escrow)
    staking = container("ProviderStaking").at(escrow.staking(), fetch_from_explorer=False)
    contracts["LeaseEscrow"] = record(escrow, block)
    contracts["ProviderStaking"] = record(staking, block)
    deployment = {
        "chainId": networks.provider.chain_id,
        "deployer": owner.address,
        "asset": asset,
        "fromBlock": min(entry["block"] for entry in contracts.values()),
        "contracts": contracts,
        "config": chosen,
    }
    write_atomically(out, deployment)
    logger.success(f"LeaseEscrow at {escrow.address}, written to {out} ({time.monotonic() - started:.1f} s)")
