"""Where the contracts are and on which terms. The file is what scripts/deploy.py writes."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from everlease.chain.abi import decode_result, encode_call
from everlease.chain.base import ChainReader
from everlease.chain.errors import ChainError, WrongChain
from everlease.chain.typed_data import Domain


class BadDeployment(ChainError):
    """A deployments file that can't be used."""


@dataclass(frozen=True, slots=True)
class Terms:
    """LeaseEscrow's Config, in the contract's order: seconds, basis points, base units; all immutable."""

    answer_window: int
    min_runtime: int
    unbonding_period: int
    max_lifetime: int
    min_silence: int
    max_silence: int
    fee_bps: int
    drop_penalty_bps: int
    slash_to_job_bps: int
    slash_to_caller_bps: int
    bond: int
    treasury: str
    insurance: str


def camel(name: str) -> str:
    """``answer_window`` → ``answerWindow``, as Solidity and the file have it."""
    head, *rest = name.split("_")
    return head + "".join(part.capitalize() for part in rest)


@dataclass(frozen=True, slots=True)
class Deployment:
    """One deployment; addresses are lower case. ``block``: nothing of it is older."""

    chain_id: int
    escrow: str
    staking: str
    asset: str
    block: int
    terms: Terms

    @property
    def escrow_domain(self) -> Domain:
        """EIP-712 domain of Order, Bid, Receipt and NodeHello."""
        return Domain(self.chain_id, self.escrow)

    @property
    def staking_domain(self) -> Domain:
        """EIP-712 domain of NodeAuth."""
        return Domain(self.chain_id, self.staking)

    @classmethod
    def load(cls, path: Path) -> "Deployment":
        """Read a deployments file; raises BadDeployment."""
        try:
            content: dict[str, Any] = json.loads(path.read_text("utf-8"))
            config = content["config"]
            values = {name: config[camel(name)] for name in Terms.__slots__}
            values |= {name: str(values[name]).lower() for name in ("treasury", "insurance")}
            return cls(
                chain_id=int(content["chainId"]),
                escrow=str(content["contracts"]["LeaseEscrow"]["address"]).lower(),
                staking=str(content["contracts"]["ProviderStaking"]["address"]).lower(),
                asset=str(content["asset"]).lower(),
                block=int(content["fromBlock"]),
                terms=Terms(**values),
            )
        except FileNotFoundError as error:
            raise BadDeployment(f"there is no deployments file {path}: deploy first (scripts/deploy.py)") from error
        except (ValueError, KeyError, TypeError) as error:
            raise BadDeployment(f"{path} is not a deployments file as scripts/deploy.py writes it") from error

    def save(self, path: Path) -> None:
        """Write the same file that ``load`` reads, whole or not at all."""
        config = {camel(name): getattr(self.terms, name) for name in Terms.__slots__}
        content = {
            "chainId": self.chain_id,
            "asset": self.asset,
            "fromBlock": self.block,
            "contracts": {"LeaseEscrow": {"address": self.escrow}, "ProviderStaking": {"address": self.staking}},
            "config": config,
        }
        partial = path.with_name(f".{path.name}.partial")
        partial.write_text(json.dumps(content, indent=2) + "\n", "utf-8")
        partial.replace(path)

    @classmethod
    def read(cls, chain: ChainReader, escrow: str, block: int) -> "Deployment":
        """Ask the contracts themselves."""

        def view(name: str) -> Any:
            return decode_result("LeaseEscrow", name, chain.call(escrow, encode_call("LeaseEscrow", name)))[0]

        return cls(chain.chain_id(), escrow.lower(), view("staking"), view("asset"), block, Terms(*view("config")))

    def check_chain(self, chain: ChainReader) -> None:
        """Raise WrongChain unless ``chain`` is the deployment's."""
        found = chain.chain_id()
        if found != self.chain_id:
            raise WrongChain(found, self.chain_id)
