"""The HTTP block service (docs/checkpoint-format.md, "HTTP"): a Starlette app, mounted elsewhere or run alone."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from everlease.domain.manifest import CID
from everlease.store.base import MAX_BLOCK_BYTES, get_block
from everlease.store.block_service import BlockService, Session
from everlease.store.car import CarReader, car_header, car_section
from everlease.store.cid import digest_of, parse_cid
from everlease.store.errors import (
    AccessDenied,
    BlockCorrupt,
    BlockNotFound,
    BlockTooLarge,
    InvalidCar,
    InvalidCid,
    LiveSetIncomplete,
    StoreError,
    StoreFull,
)
from everlease.store.live_set import LiveSet
from everlease.store.tokens import Scope, StoreToken

RAW, CAR = "application/vnd.ipld.raw", "application/vnd.ipld.car"
MAX_CIDS = 8192
MAX_JSON_BYTES = 1 << 20
_PUT_BYTES = 8 << 20
_FETCH_CHUNK = 32
_MARK_BATCH = 10_000
_CACHE = "private, max-age=29030400, immutable"
_STATUS: dict[type[StoreError], tuple[int, str]] = {
    InvalidCid: (400, "invalid-cid"),
    InvalidCar: (400, "invalid-car"),
    BlockCorrupt: (400, "block-corrupt"),
    LiveSetIncomplete: (400, "live-set-incomplete"),
    AccessDenied: (403, "access-denied"),
    BlockNotFound: (404, "block-not-found"),
    BlockTooLarge: (413, "block-too-large"),
    StoreFull: (507, "store-full"),
}

Authenticate = Callable[[str], StoreToken]


def create_block_app(service: BlockService, authenticate: Authenticate) -> Starlette:
    """The app. `authenticate` turns a bearer token into its claims or raises AccessDenied."""
    api = _BlockApi(service, authenticate)
    return Starlette(
        routes=[
            Route("/ipfs/{cid}", api.gateway, methods=["GET", "HEAD"]),
            Route("/v1/blocks", api.upload, methods=["POST"]),
            Route("/v1/blocks", api.listing, methods=["GET"]),
            Route("/v1/blocks/probe", api.probe, methods=["POST"]),
            Route("/v1/blocks/fetch", api.fetch, methods=["POST"]),
            Route("/v1/blocks/delete", api.delete, methods=["POST"]),
            Route("/v1/blocks/{cid}", api.put, methods=["PUT"]),
            Route("/v1/gc", api.collect, methods=["POST"]),
            Route("/healthz", _healthz, methods=["GET"]),
        ],
        exception_handlers={StoreError: _problem, _BadRequest: _problem},
    )


class _BadRequest(Exception):
    """A request whose form is wrong; the text says how."""

    def __init__(self, text: str, status: int = 400) -> None:
        super().__init__(text)
        self.status = status


class _BlockApi:
    """The handlers; each checks the token, bounds its input and calls the service in a thread."""

    def __init__(self, service: BlockService, authenticate: Authenticate) -> None:
        self._service = service
        self._authenticate = authenticate

    async def gateway(self, request: Request) -> Response:
        """One block, as the IPFS trustless gateway specification has it."""
        self._token(request, Scope.READ)
        cid = parse_cid(request.path_params["cid"])
        media_type = _wanted_format(request)
        suffix = "raw" if media_type == RAW else "car"
        headers = {
            "ETag": f'"{cid}.{suffix}"',
            "Cache-Control": _CACHE,
            "Content-Disposition": f'attachment; filename="{cid}.{"bin" if suffix == "raw" else "car"}"',
            "X-Content-Type-Options": "nosniff",
            "X-Ipfs-Path": f"/ipfs/{cid}",
            "Vary": "Accept",
        }
        overhead = len(car_header([cid])) + len(car_section(cid, b"")) if suffix == "car" else 0
        if request.method == "HEAD" and not overhead:
            size = await run_in_threadpool(self._service.store.size, cid)
            return Response(headers=headers | {"Content-Length": str(size)}, media_type=media_type)
        if headers["ETag"] in request.headers.get("if-none-match", ""):
            await run_in_threadpool(self._service.store.size, cid)
            return Response(status_code=304, headers=headers)
        data = await run_in_threadpool(self._stored, cid)
        body = data if suffix == "raw" else car_header([cid]) + car_section(cid, data)
        return Response(body, headers=headers, media_type=media_type)

    async def put(self, request: Request) -> Response:
        """One raw block under the CID in the path."""
        session = self._session(self._token(request, Scope.WRITE))
        cid = parse_cid(request.path_params["cid"])
        data = await _body(request, MAX_BLOCK_BYTES)
        fresh = await run_in_threadpool(self._service.put, session, [(cid, data)])
        return JSONResponse({"cid": cid, "stored": fresh}, status_code=201 if fresh else 200)

    async def upload(self, request: Request) -> Response:
        """A CAR of blocks, stored in batches as it streams in."""
        session = self._session(self._token(request, Scope.WRITE))
        reader = CarReader()
        batch: list[tuple[CID, bytes]] = []
        pending = stored = received = 0
        async for chunk in request.stream():
            for cid, data in reader.feed(chunk):
                batch.append((cid, data))
                pending += len(data)
            if pending >= _PUT_BYTES:
                stored += await run_in_threadpool(self._service.put, session, batch)
                received += len(batch)
                batch, pending = [], 0
        # Whole blocks of a stream that broke off are kept: the client's next try finds them.
        stored += await run_in_threadpool(self._service.put, session, batch)
        reader.finish()
        return JSONResponse({"received": received + len(batch), "stored": stored})

    async def probe(self, request: Request) -> Response:
        """Which blocks are missing; with the write scope the session pins the others."""
        token = self._token(request, Scope.READ)
        cids = await _cids(request)
        session = self._session(token) if Scope.WRITE in token.scopes else None
        missing = await run_in_threadpool(self._service.missing, cids, session)
        return JSONResponse({"missing": sorted(missing)})

    async def fetch(self, request: Request) -> Response:
        """Many blocks as one CAR, in the order asked. A block found damaged here is sent empty, which names it."""
        self._token(request, Scope.READ)
        cids = await _cids(request)
        missing = await run_in_threadpool(self._service.missing, cids, None)
        if missing:
            raise BlockNotFound(next(cid for cid in cids if cid in missing))
        return StreamingResponse(self._stream(cids), media_type=CAR)

    async def delete(self, request: Request) -> Response:
        """Remove blocks at once, without condemning them first."""
        self._token(request, Scope.GC)
        await run_in_threadpool(self._service.store.delete, await _cids(request))
        return Response(status_code=204)

    async def listing(self, request: Request) -> Response:
        """All CIDs, one a line, ascending by digest."""
        self._token(request, Scope.GC)
        lines = (f"{cid}\n" for cid in self._service.store.cids())
        return StreamingResponse(lines, media_type="text/plain")

    async def collect(self, request: Request) -> Response:
        """Garbage collection; the body has one live CID a line and `end <count>` as its last line."""
        self._token(request, Scope.GC)
        with LiveSet() as marked:
            count, batch = 0, list[bytes]()
            async for line in _lines(request):
                if line.startswith("end "):
                    if line != f"end {count}":
                        raise LiveSetIncomplete(f"the list has {count} CIDs and says {line[4:]!r}")
                    await run_in_threadpool(marked.add, batch)
                    report = await run_in_threadpool(self._service.sweep, marked)
                    names = ("live", "condemned", "deleted", "freed_bytes")
                    return JSONResponse({name: getattr(report, name) for name in names})
                batch.append(digest_of(line))
                count += 1
                if len(batch) == _MARK_BATCH:
                    await run_in_threadpool(marked.add, batch)
                    batch = []
        raise LiveSetIncomplete("the list of live CIDs was cut short; nothing was touched")

    def _token(self, request: Request, scope: Scope) -> StoreToken:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise _BadRequest("send the store token as Authorization: Bearer …", 401)
        claims = self._authenticate(token.strip())
        claims.require(scope)
        return claims

    def _session(self, token: StoreToken) -> Session:
        return Session(f"{token.subject}/{token.session}", token.expires_at, token.quota_bytes)

    def _stored(self, cid: CID) -> bytes:
        try:
            return get_block(self._service.store, cid)
        except BlockCorrupt as error:
            # Not the client's fault, so not the 400 of an upload.
            raise _BadRequest(f"block {cid} is damaged in this store: {error.reason}", 500) from error

    async def _stream(self, cids: list[CID]) -> AsyncIterator[bytes]:
        yield car_header()
        for start in range(0, len(cids), _FETCH_CHUNK):
            yield await run_in_threadpool(self._sections, cids[start : start + _FETCH_CHUNK])

    def _sections(self, cids: list[CID]) -> bytes:
        return b"".join(car_section(cid, data) for cid, data in self._readable(cids))

    def _readable(self, cids: list[CID]) -> Iterator[tuple[CID, bytes]]:
        try:
            yield from list(self._service.fetch(cids))
            return
        except (BlockCorrupt, BlockNotFound):
            pass
        for cid in cids:
            try:
                yield cid, get_block(self._service.store, cid)
            except (BlockCorrupt, BlockNotFound):
                yield cid, b""


def _wanted_format(request: Request) -> str:
    """Raw or CAR; `format` wins over Accept. Neither: 406, since a trustless gateway does not guess."""
    asked = request.query_params.get("format")
    if asked is not None:
        if asked not in ("raw", "car"):
            raise _BadRequest("format is raw or car", 406)
        return RAW if asked == "raw" else CAR
    accept = request.headers.get("accept", "")
    for media_type in (RAW, CAR):
        if media_type in accept:
            return media_type
    raise _BadRequest(f"ask for {RAW} or {CAR}", 406)


async def _body(request: Request, limit: int) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise _BadRequest(f"the body is larger than {limit} bytes", 413)
    return bytes(body)


async def _cids(request: Request) -> list[CID]:
    try:
        cids = json.loads(await _body(request, MAX_JSON_BYTES))["cids"]
    except (ValueError, KeyError, TypeError, RecursionError):
        cids = None
    if not isinstance(cids, list) or len(cids) > MAX_CIDS or not all(isinstance(cid, str) for cid in cids):
        raise _BadRequest(f'the body is {{"cids": […]}} with at most {MAX_CIDS} of them')
    return [parse_cid(cid) for cid in cids]


async def _lines(request: Request) -> AsyncIterator[str]:
    rest = b""
    async for chunk in request.stream():
        *lines, rest = (rest + chunk).split(b"\n")
        if len(rest) > 200:
            raise _BadRequest("a line is too long to be a CID")
        for line in lines:
            yield line.decode("ascii", "replace")


async def _healthz(_: Request) -> Response:
    return JSONResponse({"status": "ok"})


async def _problem(_: Request, error: Exception) -> Response:
    """RFC 9457."""
    status, code = 500, "store-error"
    if isinstance(error, _BadRequest):
        status, code = error.status, "bad-request"
    for kind, answer in _STATUS.items():
        if isinstance(error, kind):
            status, code = answer
    body: dict[str, Any] = {
        "type": f"urn:everlease:store:{code}",
        "title": code,
        "status": status,
        "detail": str(error),
    }
    if isinstance(error, BlockCorrupt | BlockNotFound | BlockTooLarge):
        body["cid"] = error.cid
    headers = {"WWW-Authenticate": "Bearer"} if status == 401 else {}
    return JSONResponse(body, status, headers=headers, media_type="application/problem+json")
