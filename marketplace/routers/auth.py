"""Sign-in (EIP-4361) and tokens."""

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Response

from everlease.db import identity
from everlease.db.models.identity import TokenRow
from everlease.wire.http import NonceOut, SignedIn, SignInRequest, TokenList, TokenOut
from marketplace.dependencies import COOKIE, CallerDep, PartsDep, TokenDep, limited_client
from marketplace.problems import ProblemError
from marketplace.services.presentation import unix
from marketplace.services.signin import digest_of

router = APIRouter(prefix="/v1/auth", tags=["auth"])
_ID_DIGITS = 16


@router.post("/nonce", dependencies=[Depends(limited_client)])
def nonce(parts: PartsDep) -> NonceOut:
    """A nonce for one sign-in message, and what that message has to say."""
    fresh, expires_at = parts.sign_in.nonce()
    settings = parts.settings
    return NonceOut(
        nonce=fresh,
        domain=settings.sign_in_domain,
        uri=settings.origin,
        chain_id=parts.deployment.chain_id,
        statement=settings.siwe_statement,
        expires_at=unix(expires_at),
    )


@router.post("/verify", dependencies=[Depends(limited_client)])
def verify(request: SignInRequest, parts: PartsDep, response: Response) -> SignedIn:
    """Trade a signed message for a bearer token, or for an HttpOnly cookie."""
    issued = parts.sign_in.verify(request.message, request.signature, request.label)
    if request.cookie:
        response.set_cookie(
            COOKIE,
            issued.secret,
            max_age=parts.settings.token_lifetime_s,
            path="/",
            secure=parts.settings.secure_cookies,
            httponly=True,
            samesite="strict",
        )
    return SignedIn(
        address=issued.row.address,
        token="" if request.cookie else issued.secret,
        token_id=issued.row.digest[:_ID_DIGITS],
        expires_at=unix(issued.row.expires_at),
    )


@router.get("/session")
def session(caller: CallerDep) -> dict[str, str]:
    """Who this token speaks for."""
    return {"address": caller}


@router.post("/sign-out", status_code=204)
def sign_out(parts: PartsDep, caller: CallerDep, token: TokenDep) -> Response:
    """Revoke the token that is used for this very call."""
    with parts.db.transaction() as tx:
        identity.revoke_token(tx, caller, digest_of(token))
    response = Response(status_code=204)
    response.delete_cookie(COOKIE, path="/")
    return response


@router.get("/tokens")
def tokens(parts: PartsDep, caller: CallerDep) -> TokenList:
    """The caller's live tokens."""
    with parts.db.transaction() as tx:
        return TokenList(items=[_token_out(row) for row in identity.tokens_of(tx, caller)])


@router.delete("/tokens/{token_id}", status_code=204)
def revoke(token_id: Annotated[str, Path(pattern=r"^[0-9a-f]{16}$")], parts: PartsDep, caller: CallerDep) -> Response:
    """Revoke one of the caller's tokens."""
    with parts.db.transaction() as tx:
        if not identity.revoke_token(tx, caller, token_id):
            raise ProblemError(404, "unknown-token", f"you have no token {token_id}")
    return Response(status_code=204)


def _token_out(row: TokenRow) -> TokenOut:
    return TokenOut(
        id=row.digest[:_ID_DIGITS],
        label=row.label,
        created_at=unix(row.created_at),
        expires_at=unix(row.expires_at),
    )
