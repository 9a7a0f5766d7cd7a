"""Deploy the committed bytecode without ape: for ``everlease up`` on development chains and for tests."""

import time
from dataclasses import astuple
from typing import Any

from eth_account import Account

from everlease.chain.abi import encode_constructor
from everlease.chain.base import ChainWriter, TxReceipt
from everlease.chain.deployment import Deployment, Terms
from everlease.chain.errors import CallReverted, ChainError
from everlease.chain.keys import Key


class NotMined(ChainError):
    """A transaction was accepted and not mined in time; it may still be."""

    retryable = True


def deploy_escrow(chain: ChainWriter, key: Key, terms: Terms, asset: str | None = None) -> Deployment:
    """Deploy LeaseEscrow (which deploys ProviderStaking), before it a mock dollar where no ``asset`` is named."""
    first = None
    if asset is None:
        asset, first = _create(chain, key, encode_constructor("MockDollar"))
    code = encode_constructor("LeaseEscrow", asset, astuple(terms))
    escrow, block = _create(chain, key, code)
    return Deployment.read(chain, escrow, first or block)


def send_and_wait(
    chain: ChainWriter, key: Key, to: str, data: bytes, *, value: int = 0, timeout_s: float = 60.0
) -> TxReceipt:
    """Send one transaction and wait until it is mined; for people's own wallets (CLI), where nobody else uses the key.

    Raises CallReverted before anything is sent, NotMined after ``timeout_s``.
    """
    gas = chain.estimate_gas(key.address, to, data, value)
    return _send(chain, key, {"to": bytes.fromhex(to[2:]), "data": data, "value": value}, gas, timeout_s)


def _create(chain: ChainWriter, key: Key, code: bytes) -> tuple[str, int]:
    receipt = _send(chain, key, {"to": b"", "data": code, "value": 0}, 12_000_000, 60.0)
    assert receipt.contract is not None
    return receipt.contract, receipt.block_number


def _send(chain: ChainWriter, key: Key, fields: dict[str, Any], gas: int, timeout_s: float) -> TxReceipt:
    fees = chain.fees()
    signed = Account.sign_transaction(
        {
            "type": 2,
            "chainId": chain.chain_id(),
            "nonce": chain.nonce(key.address),
            "gas": gas * 5 // 4,
            "maxFeePerGas": 2 * fees.base_fee + fees.priority_fee,
            "maxPriorityFeePerGas": fees.priority_fee,
            **fields,
        },
        key.secret,
    )
    tx_hash = chain.send_raw(bytes(signed.raw_transaction))
    deadline = time.monotonic() + timeout_s
    while (receipt := chain.receipts([tx_hash])[0]) is None:
        if time.monotonic() > deadline:
            raise NotMined(f"{tx_hash} was not mined within {timeout_s:.0f} s; it may still be")
        time.sleep(0.05)
    if not receipt.ok:
        raise CallReverted("Unknown", {"transaction": tx_hash})
    return receipt
