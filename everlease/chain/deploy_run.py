"""Carries a deployment out so that an interruption at any point never deploys twice.

Beside the deployments file lies ``NAME.pending``: which transactions were signed, at which nonces. It is written before
anything is sent. A later run finds it and goes on: the same bytes, or a dearer version at the same nonce.
"""

import json
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from eth_utils.crypto import keccak

from everlease.chain.abi import artifact
from everlease.chain.base import TxReceipt
from everlease.chain.bytecode import code_hash, is_committed, staking_address
from everlease.chain.deploy_plan import Plan, Step
from everlease.chain.deployment import write_json
from everlease.chain.errors import AlreadyKnown, ChainError, NonceTooLow, Underpriced
from everlease.chain.offers import MAX_FEE, dearer, market_offer
from everlease.chain.rpc import RpcChain
from everlease.domain.transactions import FeeOffer

_AGAIN_AFTER_S = 60.0
_LOOKS = 5
_CONTRACTS = ("MockDollar", "LeaseEscrow", "ProviderStaking")


class DeploymentFailed(ChainError):
    """It was not brought to its end; the sentence says what to do."""


class Signer(Protocol):
    """The deployer's account."""

    address: str

    def sign(self, fields: Mapping[str, Any]) -> bytes:
        """A signed EIP-1559 transaction with these fields, ready to be sent."""
        ...


class Pending:
    """The file beside the deployments file: ``chainId``, ``deployer``, ``asset``, ``config``, the fees that were agreed
    to, and for each contract its ``nonce``, ``address``, ``gas``, creation ``code`` and signed ``versions``."""

    def __init__(self, out: Path) -> None:
        self.path = out.with_name(out.name + ".pending")

    def load(self) -> dict[str, Any] | None:
        """What an interrupted run left, or None. Raises DeploymentFailed where it can't be read."""
        try:
            found: dict[str, Any] = json.loads(self.path.read_text("utf-8"))
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise DeploymentFailed(
                f"{self.path} can't be read: look at the deployer's transactions, then remove it"
            ) from error
        return found

    def begin(self, plan: Plan) -> dict[str, Any]:
        """The file for a new deployment; nothing is signed yet."""
        return {
            "chainId": plan.chain_id,
            "deployer": plan.deployer,
            "asset": plan.asset.address,
            "config": plan.terms.as_config(),
            "maxFee": plan.offer.max_fee,
            "tip": plan.offer.priority_fee,
            "steps": [_entry(step) for step in plan.steps],
        }

    def save(self, content: dict[str, Any]) -> None:
        """Durable before it returns; raises NotWritten, and then nothing may be sent that the file doesn't tell of."""
        write_json(self.path, content)

    def remove(self) -> None:
        """The deployment is complete."""
        self.path.unlink(missing_ok=True)


def _entry(step: Step) -> dict[str, Any]:
    return {
        "contract": step.contract,
        "nonce": step.nonce,
        "address": step.address,
        "gas": step.gas,
        "code": "0x" + step.code.hex(),
        "versions": [],
    }


class Run:
    """One run of the command. ``confirmations``: blocks that hold a transaction or lie on top of it; times in seconds.

    It offers no more than was planned; only a further run, which a person starts, offers more where the market rose.
    """

    def __init__(
        self,
        chain: RpcChain,
        signer: Signer,
        out: Path,
        *,
        confirmations: int,
        timeout_s: float,
        poll_s: float,
        say: Callable[[str], None],
    ) -> None:
        self._chain, self._signer = chain, signer
        self._out, self._pending = out, Pending(out)
        self._confirmations, self._timeout_s, self._poll_s, self._say = confirmations, timeout_s, poll_s, say

    def carry_out(self, content: dict[str, Any]) -> dict[str, Any]:
        """Create what is pending, check it, write the deployments file; returns what it holds.

        Whoever calls holds everlease.chain.deploy_lock.only_one. Raises DeploymentFailed, NotWritten.
        """
        if content["chainId"] != self._chain.chain_id() or content["deployer"] != self._signer.address.lower():
            raise DeploymentFailed(
                f"{self._pending.path} is of {content['deployer']} on chain {content['chainId']}: finish it there, "
                "or remove it"
            )
        for step in content["steps"]:
            if not step["code"].startswith("0x" + artifact(step["contract"])["bytecode"].removeprefix("0x")):
                raise DeploymentFailed(f"{self._pending.path} was begun with another version of {step['contract']}")
        receipts = {step["contract"]: self._create(content, step) for step in content["steps"]}
        deployment = self._describe(content, receipts)
        write_json(self._out, deployment)
        self._pending.remove()
        return deployment

    def _create(self, content: dict[str, Any], step: dict[str, Any]) -> TxReceipt:
        """Wait until the contract is there for as many blocks as wanted, sending as often as it takes."""
        deadline, sent_at = time.monotonic() + self._timeout_s, float("-inf")
        if self._receipt(step) is None:
            self._sign(content, step)
        while True:
            receipt = self._receipt(step)
            if receipt is not None and not receipt.ok:
                raise DeploymentFailed(
                    f"{receipt.tx_hash} reverted, {step['contract']} was not created: remove {self._pending.path} and "
                    "start anew"
                )
            if receipt is not None and self._depth(receipt) >= self._confirmations:
                return receipt
            if receipt is None and time.monotonic() - sent_at > _AGAIN_AFTER_S:
                self._send(step)
                sent_at = time.monotonic()
                continue
            if time.monotonic() > deadline:
                if receipt is None and self._is_spent(content, step):
                    self._look_again(content, step)
                raise DeploymentFailed(
                    f"{step['contract']} has not {self._confirmations} confirmations after {self._timeout_s:.0f} s: "
                    "run the same command again to go on, with a higher fee where the market rose"
                )
            time.sleep(self._poll_s)

    def _receipt(self, step: dict[str, Any]) -> TxReceipt | None:
        hashes = [_hash(version["raw"]) for version in step["versions"]]
        return next((receipt for receipt in self._chain.receipts(hashes) if receipt is not None), None)

    def _depth(self, receipt: TxReceipt) -> int:
        head = self._chain.header("latest")
        return 0 if head is None else head.number - receipt.block_number + 1

    def _sign(self, content: dict[str, Any], step: dict[str, Any]) -> None:
        """Sign and keep the first version, or a dearer one where the base fee is above what the last one offers."""
        if self._is_spent(content, step):
            self._look_again(content, step)
            return
        versions = step["versions"]
        if versions:
            fees, last = self._chain.fees(), versions[-1]
            if fees.base_fee <= last["maxFee"]:
                return
            more = dearer(FeeOffer(last["maxFee"], last["tip"]), market_offer(fees))
            if more is None or more.max_fee < fees.base_fee:
                raise DeploymentFailed(
                    f"a block asks {fees.base_fee} wei per gas, and {MAX_FEE} is the most that is ever offered: "
                    "run the same command again when it asks less"
                )
            content["maxFee"], content["tip"] = more.max_fee, more.priority_fee
        offer = {"maxFee": content["maxFee"], "tip": content["tip"]}
        raw = self._signer.sign(
            {
                "chainId": content["chainId"],
                "nonce": step["nonce"],
                "gas": step["gas"],
                "maxFeePerGas": offer["maxFee"],
                "maxPriorityFeePerGas": offer["tip"],
                "data": bytes.fromhex(step["code"][2:]),
            }
        )
        versions.append({"raw": "0x" + raw.hex(), **offer})
        self._pending.save(content)

    def _is_spent(self, content: dict[str, Any], step: dict[str, Any]) -> bool:
        return self._chain.nonce(content["deployer"]) > int(step["nonce"])

    def _look_again(self, content: dict[str, Any], step: dict[str, Any]) -> None:
        """The nonce is spent and no receipt of ours is seen: by something else, unless the node only lags."""
        for _ in range(_LOOKS):
            if self._receipt(step) is not None:
                return
            time.sleep(self._poll_s)
        if self._chain.code(step["address"]):
            raise DeploymentFailed(
                f"{step['contract']} is at {step['address']}, but this endpoint does not show its transaction: "
                "run the same command again, over another endpoint if need be"
            )
        raise DeploymentFailed(
            f"nonce {step['nonce']} of {content['deployer']} was used by another transaction: remove "
            f"{self._pending.path} and start anew"
        )

    def _send(self, step: dict[str, Any]) -> None:
        newest = step["versions"][-1]["raw"]
        self._say(f"sending {step['contract']} as {_hash(newest)}, nonce {step['nonce']}")
        with suppress(AlreadyKnown, NonceTooLow, Underpriced):
            self._chain.send_raw(bytes.fromhex(newest[2:]))

    def _describe(self, content: dict[str, Any], receipts: Mapping[str, TxReceipt]) -> dict[str, Any]:
        """The deployments file, after a look at the code that is really there."""
        escrow = receipts["LeaseEscrow"]
        contracts = {}
        for name in _CONTRACTS:
            receipt = receipts.get(name, escrow)
            address = self._address(name, content)
            if address is None:
                continue
            code = self._chain.code(address)
            if not is_committed(name, code):
                raise DeploymentFailed(f"the code at {address} is not the committed {name}: do not use it")
            contracts[name] = {
                "address": address,
                "codeHash": code_hash(code),
                "block": receipt.block_number,
                "transaction": receipt.tx_hash,
            }
        return {
            "chainId": content["chainId"],
            "deployer": content["deployer"],
            "asset": content["asset"],
            "fromBlock": min(receipt.block_number for receipt in receipts.values()),
            "contracts": contracts,
            "config": content["config"],
        }

    def _address(self, contract: str, content: dict[str, Any]) -> str | None:
        created = {step["contract"]: str(step["address"]) for step in content["steps"]}
        return staking_address(created["LeaseEscrow"]) if contract == "ProviderStaking" else created.get(contract)


def _hash(raw: str) -> str:
    return "0x" + bytes(keccak(hexstr=raw)).hex()
