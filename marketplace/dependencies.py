"""What routes ask for: the process's parts, and who is calling."""

from typing import Annotated

from fastapi import Depends, Header, Request

from marketplace.networks import network_of, site_of
from marketplace.parts import Parts
from marketplace.problems import ProblemError

COOKIE = "everlease_session"
_UNSAFE = frozenset({"POST", "PUT", "PATCH", "DELETE"})


def parts_of(request: Request) -> Parts:
    """The process's parts."""
    parts: Parts = request.app.state.parts
    return parts


PartsDep = Annotated[Parts, Depends(parts_of)]


def presented_token(request: Request, parts: PartsDep) -> str:
    """The caller's token, from the Authorization header or the cookie; raises ProblemError (401, 403).

    A cookie is taken on unsafe methods only where the Origin header is our own.
    """
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token:
        return token.strip()
    cookie = request.cookies.get(COOKIE)
    if not cookie:
        raise ProblemError(401, "not-signed-in", "sign in first: POST /v1/auth/nonce", WWW_Authenticate="Bearer")
    if request.method in _UNSAFE and request.headers.get("origin") != parts.settings.origin:
        raise ProblemError(403, "foreign-origin", f"this request came from another site than {parts.settings.origin}")
    return cookie


def caller_of(parts: PartsDep, token: Annotated[str, Depends(presented_token)]) -> str:
    """The address that is calling, in lower case; raises ProblemError (401)."""
    owner = parts.sign_in.owner(token)
    if owner is None:
        raise ProblemError(
            401, "token-refused", "the token is unknown, expired or revoked: sign in again", WWW_Authenticate="Bearer"
        )
    return owner


def limited_client(request: Request, parts: PartsDep) -> None:
    """Count an attempt to sign in by the caller's network, and by its site; raises ProblemError (429)."""
    network = network_of(request.client.host if request.client else "unknown")
    parts.auth_limit.admit(network)
    parts.auth_site_limit.admit(site_of(network))


CallerDep = Annotated[str, Depends(caller_of)]
TokenDep = Annotated[str, Depends(presented_token)]
IdempotencyKey = Annotated[
    str | None,
    Header(alias="Idempotency-Key", min_length=8, max_length=200, pattern=r"^[\x21-\x7e]+$"),
]


def job_id_path(job_id: str) -> str:
    """The path's job id, in lower case; raises ProblemError (404) for what can't be one."""
    lowered = job_id.lower()
    if len(lowered) != 66 or not lowered.startswith("0x") or set(lowered[2:]) - set("0123456789abcdef"):
        raise ProblemError(404, "unknown-job", f"{job_id[:80]!r} is not a job id")
    return lowered


JobIdDep = Annotated[str, Depends(job_id_path)]
