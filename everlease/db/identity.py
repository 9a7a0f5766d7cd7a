"""Who may call the API: nonces used once, hashed bearer tokens, and answers kept for idempotency keys."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import delete, func, select, text, update

from everlease.db.engine import Tx
from everlease.db.models.identity import IdempotencyRow, NonceRow, TokenRow

_now = func.clock_timestamp
_ANSWERS_KEPT = timedelta(days=7)


class KeyReused(Exception):
    """An idempotency key came back with another request."""

    retryable = False

    def __init__(self, key: str) -> None:
        super().__init__(f"idempotency key {key!r} was used for another request")
        self.key = key


def issue_nonce(tx: Tx, nonce: str, lifetime: timedelta) -> datetime:
    """Store a nonce and return when it expires; expired ones are swept out on the way."""
    tx.execute(delete(NonceRow).where(NonceRow.expires_at < _now() - lifetime))
    expires_at = tx.scalar(select(_now() + lifetime))
    assert isinstance(expires_at, datetime)
    tx.add(NonceRow(nonce=nonce, expires_at=expires_at))
    return expires_at


def use_nonce(tx: Tx, nonce: str) -> bool:
    """Use a nonce up; False where it is unknown, expired or was used before."""
    used = tx.execute(
        update(NonceRow)
        .where(NonceRow.nonce == nonce, NonceRow.used_at.is_(None), NonceRow.expires_at > _now())
        .values(used_at=_now())
        .returning(NonceRow.nonce)
    ).one_or_none()
    return used is not None


def add_token(tx: Tx, digest: str, address: str, label: str, lifetime: timedelta) -> TokenRow:
    """Store a token by its sha256 (hex); the token itself is never written."""
    expires_at = tx.scalar(select(_now() + lifetime))
    assert isinstance(expires_at, datetime)
    row = TokenRow(digest=digest, address=address, label=label, expires_at=expires_at)
    tx.add(row)
    tx.flush()
    tx.refresh(row)
    return row


def token_owner(tx: Tx, digest: str) -> str | None:
    """The address a token speaks for, or None where it is unknown, expired or revoked."""
    return tx.scalar(
        select(TokenRow.address).where(
            TokenRow.digest == digest, TokenRow.revoked_at.is_(None), TokenRow.expires_at > _now()
        )
    )


def tokens_of(tx: Tx, address: str) -> Sequence[TokenRow]:
    """An address's live tokens, newest first."""
    return tx.scalars(
        select(TokenRow)
        .where(TokenRow.address == address, TokenRow.revoked_at.is_(None), TokenRow.expires_at > _now())
        .order_by(TokenRow.created_at.desc(), TokenRow.digest)
    ).all()


def revoke_token(tx: Tx, address: str, digest_prefix: str) -> bool:
    """Revoke the address's token whose digest begins with ``digest_prefix``; False where there is none."""
    revoked = tx.execute(
        update(TokenRow)
        .where(
            TokenRow.address == address,
            TokenRow.digest.startswith(digest_prefix, autoescape=True),
            TokenRow.revoked_at.is_(None),
        )
        .values(revoked_at=_now())
        .returning(TokenRow.digest)
    ).first()
    return revoked is not None


def recall(tx: Tx, address: str, key: str, request_digest: str) -> IdempotencyRow | None:
    """The answer kept for this key; concurrent requests with the key take turns until their transaction ends.

    Raises KeyReused where the key came with another request.
    """
    tx.execute(text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))"), {"name": f"{address} {key}"})
    row = tx.scalar(select(IdempotencyRow).where(IdempotencyRow.address == address, IdempotencyRow.key == key))
    if row is not None and row.request_digest != request_digest:
        raise KeyReused(key)
    return row


def remember(tx: Tx, address: str, key: str, request_digest: str, status: int, body: dict[str, Any]) -> None:
    """Keep an answer, in the transaction that made it true; the caller's answers of over a week ago are dropped."""
    outdated = IdempotencyRow.created_at < _now() - _ANSWERS_KEPT
    tx.execute(delete(IdempotencyRow).where(IdempotencyRow.address == address, outdated))
    tx.add(IdempotencyRow(address=address, key=key, request_digest=request_digest, status=status, body=body))
