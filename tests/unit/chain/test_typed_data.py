"""Digests against eth_account's generic EIP-712; signing and checking."""

from typing import Any

import pytest
from eth_account.messages import SignableMessage, _hash_eip191_message, encode_typed_data
from eth_utils import keccak
from hypothesis import given
from hypothesis import strategies as st

from everlease.chain import typed_data as td
from everlease.chain.errors import InvalidSignature
from everlease.chain.keys import Key
from everlease.domain.terms import Bid, NodeAuth, Order, Receipt

ADDRESS = st.binary(min_size=20, max_size=20).map(lambda raw: "0x" + raw.hex())
HEX32 = st.binary(min_size=32, max_size=32).map(lambda raw: "0x" + raw.hex())
U32, U64, U128, U256 = (st.integers(0, 2**bits - 1) for bits in (32, 64, 128, 256))

TYPES: dict[str, list[tuple[str, str]]] = {
    "Order": [
        ("address", "tenant"), ("address", "watcher"), ("bytes32", "jobSpec"), ("uint128", "maxRatePerHour"),
        ("uint128", "deposit"), ("uint128", "minCollateral"), ("uint32", "maxSilence"), ("uint32", "maxEpochs"),
        ("uint128", "epochFee"), ("uint64", "deadline"), ("uint256", "nonce"),
    ],
    "Bid": [
        ("address", "provider"), ("address", "node"), ("bytes32", "orderHash"), ("uint32", "epoch"),
        ("uint128", "minRatePerHour"), ("uint128", "collateral"), ("uint64", "deadline"), ("uint256", "slot"),
    ],
    "Receipt": [
        ("bytes32", "leaseId"), ("uint64", "seq"), ("uint64", "seenAt"), ("uint64", "earned"), ("bool", "final"),
        ("bytes32", "checkpointRoot"),
    ],
    "NodeAuth": [("address", "provider"), ("address", "node"), ("uint64", "deadline"), ("uint256", "nonce")],
    "NodeHello": [("bytes32", "nonce"), ("address", "node"), ("address", "provider"), ("bytes32", "sealingKeyHash")],
    "Permit": [
        ("address", "owner"), ("address", "spender"), ("uint256", "value"), ("uint256", "nonce"),
        ("uint256", "deadline"),
    ],
}  # fmt: skip


def generic(kind: str, values: list[Any], chain_id: int, contract: str, name: str = "Everlease") -> bytes:
    """The digest as eth_account makes it from JSON."""
    message: SignableMessage = encode_typed_data(
        domain_data={"name": name, "version": "1", "chainId": chain_id, "verifyingContract": contract},
        message_types={kind: [{"type": type_, "name": field} for type_, field in TYPES[kind]]},
        message_data={field: value for (_, field), value in zip(TYPES[kind], values, strict=True)},
    )
    return bytes(_hash_eip191_message(message))


ORDERS = st.builds(Order, ADDRESS, ADDRESS, HEX32, U128, U128, U128, U32, U32, U128, U64, U256)
BIDS = st.builds(Bid, ADDRESS, ADDRESS, HEX32, U32, U128, U128, U64, U256)
RECEIPTS = st.builds(Receipt, HEX32, U64, U64, U64, st.booleans(), HEX32)
AUTHS = st.builds(NodeAuth, ADDRESS, ADDRESS, U64, U256)


def values_of(message: object) -> list[Any]:
    return [getattr(message, name) for name in message.__slots__]  # type: ignore[attr-defined]


@given(ORDERS, BIDS, RECEIPTS, AUTHS, U32, ADDRESS)
def test_digests_are_those_of_eth_account(
    order: Order, bid: Bid, receipt: Receipt, auth: NodeAuth, chain_id: int, contract: str
) -> None:
    domain = td.Domain(chain_id, contract)
    assert td.order_digest(domain, order) == generic("Order", values_of(order), chain_id, contract)
    assert td.bid_digest(domain, bid) == generic("Bid", values_of(bid), chain_id, contract)
    assert td.receipt_digest(domain, receipt) == generic("Receipt", values_of(receipt), chain_id, contract)
    assert td.node_auth_digest(domain, auth) == generic("NodeAuth", values_of(auth), chain_id, contract)


@given(HEX32, ADDRESS, ADDRESS, st.binary(min_size=32, max_size=32), U256, U32, ADDRESS)
def test_hello_and_permit(
    nonce: str, node: str, provider: str, sealing: bytes, number: int, chain_id: int, contract: str
) -> None:
    hello = td.NodeHello(nonce, node, provider, sealing)
    expected = generic("NodeHello", [nonce, node, provider, bytes(keccak(sealing))], chain_id, contract)
    assert td.node_hello_digest(td.Domain(chain_id, contract), hello) == expected
    permit = td.TokenPermit(node, provider, number, number, number)
    expected = generic("Permit", [node, provider, number, number, number], chain_id, contract, "Mock Dollar")
    assert td.permit_digest(chain_id, contract, "Mock Dollar", "1", permit) == expected


@given(st.binary(min_size=32, max_size=32))
def test_a_signature_recovers_to_its_signer(digest: bytes) -> None:
    key = Key.generate()
    signature = key.sign(digest)
    assert td.recover(digest, signature) == key.address
    assert td.verify(digest, key.address.upper().replace("0X", "0x"), signature)
    assert not td.verify(digest, Key.generate().address, signature)


@given(st.binary(max_size=100))
def test_rubbish_is_refused_and_never_crashes(raw: bytes) -> None:
    assert not td.verify(b"\1" * 32, "0x" + "11" * 20, "0x" + raw.hex())


def test_malleable_and_compact_signatures_are_refused() -> None:
    key, digest = Key.of(b"\7" * 32), b"\2" * 32
    raw = bytes.fromhex(key.sign(digest)[2:])
    order = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
    flipped = raw[:32] + (order - int.from_bytes(raw[32:64], "big")).to_bytes(32, "big") + bytes([55 - raw[64]])
    for bad in (flipped, raw[:64], raw[:64] + b"\0", b""):
        with pytest.raises(InvalidSignature):
            td.recover(digest, "0x" + bad.hex())
    with pytest.raises(InvalidSignature):
        td.recover(digest, "0xzz")


class Wallet:
    """A contract wallet that accepts one signature, as a chain would answer for it."""

    def __init__(self, accepts: bytes) -> None:
        self.accepts = accepts

    def code(self, address: str) -> bytes:
        return b"\x60"

    def call(self, to: str, data: bytes) -> bytes:
        length = int.from_bytes(data[68:100], "big")
        return data[:4].ljust(32, b"\0") if data[100 : 100 + length] == self.accepts else b"\0" * 32


def test_a_contract_wallet_is_asked() -> None:
    wallet = Wallet(b"a signature of any length")
    assert td.verify(b"\1" * 32, "0x" + "aa" * 20, "0x" + wallet.accepts.hex(), wallet)
    assert not td.verify(b"\1" * 32, "0x" + "aa" * 20, "0x1234", wallet)
