"""Deploy the committed bytecode without ape: for ``everlease up`` on development chains and for tests."""

import time
from dataclasses import astuple

from everlease.chain.abi import encode_constructor
from everlease.chain.base import ChainWriter, TxReceipt
from everlease.chain.deployment import Deployment, Terms
from everlease.chain.errors import CallReverted, NotMined
from everlease.chain.keys import Key
from everlease.chain.offers import market_offer
from everlease.chain.signing import sign_transaction


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
    """Send one transaction and wait until it is mined; for keys that this process alone uses.

    Wallets of people are sent for by everlease.chain.wallet_queue.

    Raises CallReverted before anything is sent, NotMined after ``timeout_s``.
    """
    return _send(chain, key, to, data, value, chain.estimate_gas(key.address, to, data, value), timeout_s)


def _create(chain: ChainWriter, key: Key, code: bytes) -> tuple[str, int]:
    receipt = _send(chain, key, None, code, 0, 12_000_000, 60.0)
    assert receipt.contract is not None
    return receipt.contract, receipt.block_number


def _send(
    chain: ChainWriter, key: Key, to: str | None, data: bytes, value: int, gas: int, timeout_s: float
) -> TxReceipt:
    offer = market_offer(chain.fees())
    raw, _ = sign_transaction(
        key, chain.chain_id(), chain.nonce(key.address), to, data, gas * 5 // 4, offer, value=value
    )
    tx_hash = chain.send_raw(raw)
    deadline = time.monotonic() + timeout_s
    while (receipt := chain.receipts([tx_hash])[0]) is None:
        if time.monotonic() > deadline:
            raise NotMined("the transaction", tx_hash)
        time.sleep(0.05)
    if not receipt.ok:
        raise CallReverted("Unknown", {"transaction": tx_hash})
    return receipt
