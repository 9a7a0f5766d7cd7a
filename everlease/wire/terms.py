"""Signed terms on the wire, and their way from and to the domain's dataclasses."""

from dataclasses import asdict

from pydantic import Field

from everlease.domain import terms
from everlease.wire.base import Address, Hex32, Message, Signature, Units, UnixSeconds


class OrderModel(Message):
    tenant: Address
    watcher: Address
    job_spec: Hex32
    max_rate_per_hour: Units
    deposit: Units
    min_collateral: Units
    max_silence: int = Field(ge=1, le=86_400)
    max_epochs: int = Field(ge=1, le=1_000_000)
    epoch_fee: Units
    deadline: UnixSeconds
    nonce: int = Field(ge=0, lt=2**256)

    def to_domain(self) -> terms.Order:
        return terms.Order(**self.model_dump())

    @classmethod
    def from_domain(cls, order: terms.Order) -> "OrderModel":
        return cls(**asdict(order))


class BidModel(Message):
    provider: Address
    node: Address
    order_hash: Hex32
    epoch: int = Field(ge=1, le=1_000_000)
    min_rate_per_hour: Units
    collateral: Units
    deadline: UnixSeconds
    slot: int = Field(ge=0, lt=2**256)

    def to_domain(self) -> terms.Bid:
        return terms.Bid(**self.model_dump())

    @classmethod
    def from_domain(cls, bid: terms.Bid) -> "BidModel":
        return cls(**asdict(bid))


class LeaseParamsModel(Message):
    job_id: Hex32
    tenant: Address
    watcher: Address
    provider: Address
    node: Address
    epoch: int = Field(ge=1, le=1_000_000)
    max_silence: int = Field(ge=1, le=86_400)
    rate: Units
    collateral: Units
    slot: int = Field(ge=0, lt=2**256)

    def to_domain(self) -> terms.LeaseParams:
        return terms.LeaseParams(**self.model_dump())

    @classmethod
    def from_domain(cls, params: terms.LeaseParams) -> "LeaseParamsModel":
        return cls(**asdict(params))


class ReceiptModel(Message):
    lease_id: Hex32
    seq: int = Field(ge=0, lt=2**64)
    seen_at: UnixSeconds
    earned: int = Field(ge=0, lt=2**40)
    final: bool
    checkpoint_root: Hex32

    def to_domain(self) -> terms.Receipt:
        return terms.Receipt(**self.model_dump())

    @classmethod
    def from_domain(cls, receipt: terms.Receipt) -> "ReceiptModel":
        return cls(**asdict(receipt))


class SignedBid(Message):
    bid: BidModel
    signature: Signature


class SignedReceipt(Message):
    receipt: ReceiptModel
    signature: Signature
