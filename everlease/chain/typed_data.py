"""EIP-712 digests of what parties sign, their signing and checking.

All members are static and one word wide, so a struct's hash is keccak256 of its type hash and its members as words.
Sources: EIP-712, EIP-1271, EIP-2 (low s); the type strings are those of contracts/libraries/TypedData.sol.
Digests are bytes; signatures 0x-hex of r ‖ s ‖ v with v in {27, 28}; addresses 0x-hex in lower case.
"""

from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

from eth_keys.datatypes import PrivateKey, Signature
from eth_keys.exceptions import BadSignature
from eth_utils.crypto import keccak
from eth_utils.exceptions import ValidationError

from everlease.chain.errors import CallReverted, InvalidSignature, RpcRefused
from everlease.domain.terms import Bid, LeaseParams, NodeAuth, Order, Receipt

_DOMAIN_TYPE = keccak(text="EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)")
_NAME = keccak(text="Everlease")
_VERSION = keccak(text="1")
_ORDER_TYPE = keccak(
    text="Order(address tenant,address watcher,bytes32 jobSpec,uint128 maxRatePerHour,uint128 deposit,"
    "uint128 minCollateral,uint32 maxSilence,uint32 maxEpochs,uint128 epochFee,uint64 deadline,uint256 nonce)"
)
_BID_TYPE = keccak(
    text="Bid(address provider,address node,bytes32 orderHash,uint32 epoch,uint128 minRatePerHour,"
    "uint128 collateral,uint64 deadline,uint256 slot)"
)
_RECEIPT_TYPE = keccak(
    text="Receipt(bytes32 leaseId,uint64 seq,uint64 seenAt,uint64 earned,bool final,bytes32 checkpointRoot)"
)
_NODE_AUTH_TYPE = keccak(text="NodeAuth(address provider,address node,uint64 deadline,uint256 nonce)")
_NODE_HELLO_TYPE = keccak(text="NodeHello(bytes32 nonce,address node,address provider,bytes32 sealingKeyHash)")
_PERMIT_TYPE = keccak(text="Permit(address owner,address spender,uint256 value,uint256 nonce,uint256 deadline)")

_HALF_ORDER = 0x7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF5D576E7357A4501DDFE92F46681B20A0
_ERC1271_MAGIC = bytes.fromhex("1626ba7e")


@dataclass(frozen=True, slots=True)
class NodeHello:
    """A node's answer to the gateway's challenge; off-chain only. ``sealing_key`` is the raw 32-byte X25519 key."""

    nonce: str
    node: str
    provider: str
    sealing_key: bytes


@dataclass(frozen=True, slots=True)
class TokenPermit:
    """EIP-2612: ``owner`` lets ``spender`` take ``value`` base units until ``deadline``."""

    owner: str
    spender: str
    value: int
    nonce: int
    deadline: int


class CodeReader(Protocol):
    """What checking a contract wallet's signature takes of the chain."""

    def code(self, address: str) -> bytes:
        """The account's code, empty for a plain key."""
        ...

    def call(self, to: str, data: bytes) -> bytes:
        """eth_call on the latest block; raises CallReverted."""
        ...


def _word(value: int) -> bytes:
    return value.to_bytes(32, "big")


def _address(value: str) -> bytes:
    raw = bytes.fromhex(value.removeprefix("0x"))
    if len(raw) != 20:
        raise ValueError(f"{value!r} is not an address")
    return b"\0" * 12 + raw


def _bytes32(value: str) -> bytes:
    raw = bytes.fromhex(value.removeprefix("0x"))
    if len(raw) != 32:
        raise ValueError(f"{value!r} is not 32 bytes")
    return raw


@dataclass(frozen=True, slots=True)
class Domain:
    """Chain and contract that a signature is for: LeaseEscrow for all but NodeAuth, which is ProviderStaking's."""

    chain_id: int
    contract: str

    def digest(self, struct_hash: bytes) -> bytes:
        """keccak256(0x1901 ‖ separator ‖ struct hash)."""
        return bytes(keccak(b"\x19\x01" + _separator(self.chain_id, self.contract.lower()) + struct_hash))


@lru_cache(maxsize=64)
def _separator(chain_id: int, contract: str, name: bytes = _NAME, version: bytes = _VERSION) -> bytes:
    return bytes(keccak(_DOMAIN_TYPE + name + version + _word(chain_id) + _address(contract)))


def order_digest(domain: Domain, order: Order) -> bytes:
    """Digest of an Order under the escrow's domain: the job's id."""
    return domain.digest(
        keccak(
            _ORDER_TYPE
            + _address(order.tenant)
            + _address(order.watcher)
            + _bytes32(order.job_spec)
            + _word(order.max_rate_per_hour)
            + _word(order.deposit)
            + _word(order.min_collateral)
            + _word(order.max_silence)
            + _word(order.max_epochs)
            + _word(order.epoch_fee)
            + _word(order.deadline)
            + _word(order.nonce)
        )
    )


def job_id(domain: Domain, order: Order) -> str:
    """The job's id as 0x-hex."""
    return "0x" + order_digest(domain, order).hex()


def bid_digest(domain: Domain, bid: Bid) -> bytes:
    """Digest of a Bid under the escrow's domain."""
    return domain.digest(
        keccak(
            _BID_TYPE
            + _address(bid.provider)
            + _address(bid.node)
            + _bytes32(bid.order_hash)
            + _word(bid.epoch)
            + _word(bid.min_rate_per_hour)
            + _word(bid.collateral)
            + _word(bid.deadline)
            + _word(bid.slot)
        )
    )


def receipt_digest(domain: Domain, receipt: Receipt) -> bytes:
    """Digest of a Receipt under the escrow's domain."""
    return domain.digest(
        keccak(
            _RECEIPT_TYPE
            + _bytes32(receipt.lease_id)
            + _word(receipt.seq)
            + _word(receipt.seen_at)
            + _word(receipt.earned)
            + _word(int(receipt.final))
            + _bytes32(receipt.checkpoint_root)
        )
    )


def node_auth_digest(domain: Domain, auth: NodeAuth) -> bytes:
    """Digest of a NodeAuth under ProviderStaking's domain."""
    return domain.digest(
        keccak(
            _NODE_AUTH_TYPE + _address(auth.provider) + _address(auth.node) + _word(auth.deadline) + _word(auth.nonce)
        )
    )


def node_hello_digest(domain: Domain, hello: NodeHello) -> bytes:
    """Digest of a NodeHello under the escrow's domain."""
    return domain.digest(
        keccak(
            _NODE_HELLO_TYPE
            + _bytes32(hello.nonce)
            + _address(hello.node)
            + _address(hello.provider)
            + bytes(keccak(hello.sealing_key))
        )
    )


def permit_digest(chain_id: int, token: str, name: str, version: str, permit: TokenPermit) -> bytes:
    """Digest of an EIP-2612 permit under the token's own domain (its EIP-712 ``name`` and ``version``)."""
    struct = keccak(
        _PERMIT_TYPE
        + _address(permit.owner)
        + _address(permit.spender)
        + _word(permit.value)
        + _word(permit.nonce)
        + _word(permit.deadline)
    )
    separator = _separator(chain_id, token.lower(), bytes(keccak(text=name)), bytes(keccak(text=version)))
    return bytes(keccak(b"\x19\x01" + separator + struct))


def lease_id(params: LeaseParams) -> str:
    """keccak256(abi.encode(LeaseParams)) as 0x-hex."""
    words = (
        _bytes32(params.job_id),
        *map(_address, (params.tenant, params.watcher, params.provider, params.node)),
        *map(_word, (params.epoch, params.max_silence, params.rate, params.collateral, params.slot)),
    )
    return "0x" + bytes(keccak(b"".join(words))).hex()


def sign(key: bytes, digest: bytes) -> str:
    """Sign a digest with a raw 32-byte key (RFC 6979, low s)."""
    raw = PrivateKey(key).sign_msg_hash(digest).to_bytes()
    return "0x" + (raw[:64] + bytes([raw[64] + 27])).hex()


def recover(digest: bytes, signature: str) -> str:
    """Address of the key that made ``signature``; raises InvalidSignature where the contract would refuse it too."""
    raw = _signature_bytes(signature)
    if len(raw) != 65:
        raise InvalidSignature(f"{len(raw)} bytes instead of 65")
    if raw[64] not in (27, 28):
        raise InvalidSignature(f"v is {raw[64]} instead of 27 or 28")
    if int.from_bytes(raw[32:64], "big") > _HALF_ORDER:
        raise InvalidSignature("s is in the upper half")
    try:
        public = Signature(raw[:64] + bytes([raw[64] - 27])).recover_public_key_from_msg_hash(digest)
    except (BadSignature, ValidationError) as error:
        raise InvalidSignature(str(error)) from error
    return str(public.to_address()).lower()


def verify(digest: bytes, signer: str, signature: str, chain: CodeReader | None = None) -> bool:
    """Whether ``signer`` signed: ECDSA first, then ERC-1271 where ``chain`` is given and the signer has code.

    Never raises for a bad signature; raises RpcUnavailable where the chain must be asked and can't be.
    """
    try:
        raw = _signature_bytes(signature)
    except InvalidSignature:
        return False
    with suppress(InvalidSignature):
        if recover(digest, signature) == signer.lower():
            return True
    if chain is None or not chain.code(signer):
        return False
    padding = -len(raw) % 32
    data = _ERC1271_MAGIC + digest + _word(64) + _word(len(raw)) + raw + b"\0" * padding
    try:
        return chain.call(signer, data)[:32] == _ERC1271_MAGIC + b"\0" * 28
    except (CallReverted, RpcRefused):
        return False


def _signature_bytes(signature: str) -> bytes:
    try:
        return bytes.fromhex(signature.removeprefix("0x"))
    except ValueError as error:
        raise InvalidSignature("it is not hexadecimal") from error
