"""Who may call the API: sign-in nonces, sessions and tokens, and answers kept for idempotency keys."""

from sqlalchemy import UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from everlease.db.models.base import Address, Base, CreatedAt, Instant, Json, Serial


class NonceRow(Base):
    """An EIP-4361 nonce; used once, then never again."""

    __tablename__ = "siwe_nonce"

    nonce: Mapped[str] = mapped_column(primary_key=True)
    expires_at: Mapped[Instant]
    used_at: Mapped[Instant | None]


class TokenRow(Base):
    """A bearer token, stored as its sha256."""

    __tablename__ = "api_token"

    digest: Mapped[str] = mapped_column(primary_key=True)
    address: Mapped[Address] = mapped_column(index=True)
    label: Mapped[str]
    created_at: Mapped[CreatedAt]
    expires_at: Mapped[Instant]
    revoked_at: Mapped[Instant | None]


class IdempotencyRow(Base):
    """The first answer to (caller, key): a repeat gets it again, another body under the same key is refused."""

    __tablename__ = "idempotency"
    __table_args__ = (UniqueConstraint("address", "key"),)

    id: Mapped[Serial]
    address: Mapped[Address]
    key: Mapped[str]
    request_digest: Mapped[str]
    status: Mapped[int]
    body: Mapped[Json]
    created_at: Mapped[CreatedAt]
