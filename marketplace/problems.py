"""Every error as an RFC 9457 problem: one sentence that says what to do."""

from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.encoders import jsonable_encoder
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from everlease.chain.errors import ChainError, RpcUnavailable
from everlease.db.engine import DatabaseUnavailable
from everlease.db.identity import KeyReused
from everlease.db.jobs import UnknownJob
from everlease.store.errors import StoreError, StoreUnavailable
from everlease.wire.http import Problem

MEDIA_TYPE = "application/problem+json"
_log = structlog.get_logger("marketplace.http")


class ProblemError(Exception):
    """A request that can't be served: ``slug`` is stable for programs, ``detail`` a sentence for people."""

    retryable = False

    def __init__(self, status: int, slug: str, detail: str, **headers: str) -> None:
        super().__init__(detail)
        self.status = status
        self.slug = slug
        self.detail = detail
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


def answer(
    request: Request,
    status: int,
    slug: str,
    detail: str,
    headers: dict[str, str] | None = None,
    errors: list[dict[str, Any]] | None = None,
) -> JSONResponse:
    """The problem document as a response."""
    problem = Problem(
        type=f"urn:everlease:problem:{slug}",
        title=slug.replace("-", " "),
        status=status,
        detail=detail,
        instance=request.url.path,
        errors=errors,
    )
    return JSONResponse(problem.model_dump(exclude_none=True), status, headers=headers, media_type=MEDIA_TYPE)


def install(app: FastAPI) -> None:
    """Answer every error of this app with a problem document."""
    handlers = {
        ProblemError: _problem,
        RequestValidationError: _invalid,
        HTTPException: _http,
        UnknownJob: _unknown_job,
        KeyReused: _key_reused,
        DatabaseUnavailable: _unavailable,
        ChainError: _chain,
        StoreError: _store,
        Exception: _unexpected,
    }
    for kind, handler in handlers.items():
        app.add_exception_handler(kind, handler)  # type: ignore[arg-type]


async def _problem(request: Request, error: ProblemError) -> JSONResponse:
    return answer(request, error.status, error.slug, error.detail, error.headers)


async def _invalid(request: Request, error: RequestValidationError) -> JSONResponse:
    """Names the first field that is wrong; ``errors`` has all of them, without the values that were sent."""
    errors = [
        {"field": ".".join(str(part) for part in item["loc"][1:]), "problem": _sentence(item)}
        for item in error.errors()[:50]
    ]
    first = errors[0] if errors else {"field": "", "problem": "the request is malformed"}
    detail = f"{first['field']}: {first['problem']}" if first["field"] else first["problem"]
    return answer(request, 422, "invalid-request", detail, errors=jsonable_encoder(errors))


def _sentence(item: dict[str, Any]) -> str:
    return str(item.get("msg", "is wrong")).removeprefix("Value error, ")


async def _http(request: Request, error: HTTPException) -> JSONResponse:
    slug = {404: "not-found", 405: "method-not-allowed", 413: "too-large"}.get(error.status_code, "http-error")
    return answer(request, error.status_code, slug, str(error.detail), dict(error.headers or {}))


async def _unknown_job(request: Request, error: UnknownJob) -> JSONResponse:
    return answer(request, 404, "unknown-job", f"there is no job {error.job_id} of yours")


async def _key_reused(request: Request, error: KeyReused) -> JSONResponse:
    return answer(request, 422, "idempotency-key-reused", f"{error}: take a new key for a new request")


async def _unavailable(request: Request, error: DatabaseUnavailable) -> JSONResponse:
    _log.error("database unavailable", reason=str(error))
    return answer(request, 503, "database-unavailable", "the database is away, try again", {"Retry-After": "2"})


async def _chain(request: Request, error: ChainError) -> JSONResponse:
    _log.warning("chain error", reason=str(error))
    if isinstance(error, RpcUnavailable) or error.retryable:
        return answer(request, 503, "chain-unavailable", "the chain can't be reached, try again", {"Retry-After": "5"})
    return answer(request, 502, "chain-error", str(error))


async def _store(request: Request, error: StoreError) -> JSONResponse:
    if isinstance(error, StoreUnavailable):
        return answer(request, 503, "store-unavailable", "the block store is away, try again", {"Retry-After": "5"})
    return answer(request, 502, "store-error", str(error))


async def _unexpected(request: Request, error: Exception) -> JSONResponse:
    _log.error("unexpected error", path=request.url.path, exc_info=error)
    return answer(request, 500, "internal-error", "something broke on our side; it was logged")
