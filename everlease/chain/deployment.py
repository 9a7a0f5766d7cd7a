"""Where the contracts are, on which terms, and with which code. The file is what scripts/deploy.py writes."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from everlease.chain.abi import decode_result, encode_call
from everlease.chain.base import ChainReader
from everlease.chain.bytecode import code_hash
from everlease.chain.errors import ChainError, WrongChain
from everlease.chain.typed_data import Domain
from everlease.durable import fsync_directory


class BadDeployment(ChainError):
    """A deployments file that can't be used."""


class NotWritten(ChainError):
    """A file could not be written, for want of space or rights; the one that was there before is whole."""

    def __init__(self, path: Path, error: OSError) -> None:
        super().__init__(f"{path} can't be written: {error.strerror}; mend that and run the same command again")
        self.path = path


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

    def as_config(self) -> dict[str, int | str]:
        """As the deployments file has it, in the contract's order."""
        return {camel(name): getattr(self, name) for name in Terms.__slots__}


def camel(name: str) -> str:
    """``answer_window`` → ``answerWindow``, as Solidity and the file have it."""
    head, *rest = name.split("_")
    return head + "".join(part.capitalize() for part in rest)


@dataclass(frozen=True, slots=True)
class Deployment:
    """One deployment; addresses are lower case. ``block``: nothing of it is older. ``escrow_code``, ``staking_code``:
    keccak-256 of the contracts' code."""

    chain_id: int
    escrow: str
    staking: str
    asset: str
    block: int
    terms: Terms
    escrow_code: str = ""
    staking_code: str = ""

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
            config, contracts = content["config"], content["contracts"]
            values = {name: config[camel(name)] for name in Terms.__slots__}
            values |= {name: str(values[name]).lower() for name in ("treasury", "insurance")}
            return cls(
                chain_id=int(content["chainId"]),
                escrow=str(contracts["LeaseEscrow"]["address"]).lower(),
                staking=str(contracts["ProviderStaking"]["address"]).lower(),
                asset=str(content["asset"]).lower(),
                block=int(content["fromBlock"]),
                terms=Terms(**values),
                escrow_code=str(contracts["LeaseEscrow"]["codeHash"]),
                staking_code=str(contracts["ProviderStaking"]["codeHash"]),
            )
        except FileNotFoundError as error:
            raise BadDeployment(f"there is no deployments file {path}: deploy first (scripts/deploy.py)") from error
        except (ValueError, KeyError, TypeError) as error:
            raise BadDeployment(f"{path} is not a deployments file as scripts/deploy.py writes it") from error

    def save(self, path: Path) -> None:
        """Write the same file that ``load`` reads, whole or not at all."""
        contracts = {
            "LeaseEscrow": {"address": self.escrow, "codeHash": self.escrow_code},
            "ProviderStaking": {"address": self.staking, "codeHash": self.staking_code},
        }
        content = {"chainId": self.chain_id, "asset": self.asset, "fromBlock": self.block, "contracts": contracts}
        write_json(path, content | {"config": self.terms.as_config()})

    @classmethod
    def read(cls, chain: ChainReader, escrow: str, block: int) -> "Deployment":
        """Ask the contracts themselves."""

        def view(name: str) -> Any:
            return decode_result("LeaseEscrow", name, chain.call(escrow, encode_call("LeaseEscrow", name)))[0]

        staking = view("staking")
        return cls(
            chain_id=chain.chain_id(),
            escrow=escrow.lower(),
            staking=staking,
            asset=view("asset"),
            block=block,
            terms=Terms(*view("config")),
            escrow_code=code_hash(chain.code(escrow)),
            staking_code=code_hash(chain.code(staking)),
        )

    def check_chain(self, chain: ChainReader) -> None:
        """Raise WrongChain unless ``chain`` is the deployment's."""
        found = chain.chain_id()
        if found != self.chain_id:
            raise WrongChain(found, self.chain_id)

    def check(self, chain: ChainReader) -> None:
        """Raise WrongChain or BadDeployment unless ``chain`` is the deployment's and has its contracts' very code."""
        self.check_chain(chain)
        for name, address, expected in (
            ("LeaseEscrow", self.escrow, self.escrow_code),
            ("ProviderStaking", self.staking, self.staking_code),
        ):
            code = chain.code(address)
            if not code:
                raise BadDeployment(
                    f"chain {self.chain_id} has no contract at {address}, where the deployments file has {name}: "
                    "the file is of another network, or the development chain was started anew"
                )
            if code_hash(code) != expected:
                raise BadDeployment(f"the code at {address} is not that of the {name} in the deployments file")

    def check_if_reachable(self, chain: ChainReader) -> bool:
        """`check` for a service that starts; False where the chain can't be reached now, which is no reason not to."""
        try:
            self.check(chain)
        except ChainError as error:
            if error.retryable:
                return False
            raise
        return True


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write whole or not at all, on the disk before it returns; makes the folder. Raises NotWritten."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            _write_durably(partial, json.dumps(content, indent=2) + "\n")
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
        fsync_directory(path.parent)
    except OSError as error:
        raise NotWritten(path, error) from error


def _write_durably(path: Path, text: str) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
