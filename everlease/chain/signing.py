"""Signing EIP-1559 transactions."""

from eth_account import Account
from eth_utils.crypto import keccak

from everlease.chain.keys import Key
from everlease.domain.transactions import FeeOffer


def sign_transaction(
    key: Key, chain_id: int, nonce: int, to: str | None, data: bytes, gas: int, offer: FeeOffer, *, value: int = 0
) -> tuple[bytes, str]:
    """A call of ``to``, a creation where it is None; raw bytes and hash. ``value`` in wei, ``gas`` the limit."""
    signed = Account.sign_transaction(
        {
            "type": 2,
            "chainId": chain_id,
            "nonce": nonce,
            "gas": gas,
            "maxFeePerGas": offer.max_fee,
            "maxPriorityFeePerGas": offer.priority_fee,
            "to": bytes.fromhex(to[2:]) if to else b"",
            "data": data,
            "value": value,
        },
        key.secret,
    )
    raw = bytes(signed.raw_transaction)
    return raw, "0x" + bytes(keccak(raw)).hex()
