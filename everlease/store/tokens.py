"""Bearer tokens of the block store: HS256 JWTs that say who may do what, for which job, in which upload session."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import jwt

from everlease.store.errors import AccessDenied

AUDIENCE = "everlease-store"
MIN_SECRET_BYTES = 32


class Scope(StrEnum):
    """What a token allows: fetch and look, store and pin, list and delete."""

    READ = "read"
    WRITE = "write"
    GC = "gc"


@dataclass(frozen=True, slots=True)
class StoreToken:
    """A verified token. `subject` is a node's or tenant's address; `expires_at` is in unix seconds.

    `quota_bytes` bounds what its session may store, below the service's own limit.
    """

    subject: str
    scopes: frozenset[Scope]
    expires_at: float
    session: str
    job: str | None = None
    quota_bytes: int | None = None

    def require(self, scope: Scope) -> None:
        """Raise AccessDenied unless the token has `scope`."""
        if scope not in self.scopes:
            raise AccessDenied(f"this token does not allow {scope.value}; ask the marketplace for one that does")


def issue_token(
    secret: bytes,
    *,
    subject: str,
    scopes: Iterable[Scope],
    session: str,
    now: float,
    ttl_s: float,
    job: str | None = None,
    quota_bytes: int | None = None,
) -> str:
    """A signed token that is valid for `ttl_s` seconds from `now` (unix seconds). The secret has 32 bytes or more."""
    _check_secret(secret)
    claims: dict[str, Any] = {
        "aud": AUDIENCE,
        "sub": subject,
        "scope": " ".join(sorted(scope.value for scope in scopes)),
        "session": session,
        "iat": int(now),
        "exp": int(now + ttl_s),
    }
    if job is not None:
        claims["job"] = job
    if quota_bytes is not None:
        claims["quota"] = quota_bytes
    return jwt.encode(claims, secret, algorithm="HS256")


def verify_token(secret: bytes, token: str, *, now: float) -> StoreToken:
    """Check signature, audience and expiry. Raises AccessDenied."""
    _check_secret(secret)
    required = ["sub", "scope", "session", "exp", "aud"]
    # The clock is ours, so that tests and skewed hosts behave; PyJWT would ask the system's.
    options: Any = {"require": required, "verify_exp": False, "verify_iat": False}
    try:
        claims = jwt.decode(token, secret, algorithms=["HS256"], audience=AUDIENCE, options=options)
        expires_at = float(claims["exp"])
        scopes = frozenset(Scope(word) for word in str(claims["scope"]).split())
        quota = None if claims.get("quota") is None else int(claims["quota"])
    except (jwt.PyJWTError, ValueError, TypeError) as error:
        raise AccessDenied("the store token is invalid; ask the marketplace for a new one") from error
    if expires_at <= now:
        raise AccessDenied("the store token has expired; ask the marketplace for a new one")
    job = claims.get("job")
    job = None if job is None else str(job)
    return StoreToken(str(claims["sub"]), scopes, expires_at, str(claims["session"]), job, quota)


def _check_secret(secret: bytes) -> None:
    if len(secret) < MIN_SECRET_BYTES:
        raise ValueError(f"the store's token secret has at least {MIN_SECRET_BYTES} bytes")
