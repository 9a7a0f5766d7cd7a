"""BlockStore over HTTP: the client of everlease.store.service."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

import httpx

from everlease.domain.manifest import CID
from everlease.store.base import check_block
from everlease.store.block_service import GcReport
from everlease.store.car import CarReader, car_header, car_section
from everlease.store.cid import matches, parse_cid
from everlease.store.errors import (
    AccessDenied,
    BlockCorrupt,
    BlockNotFound,
    BlockTooLarge,
    InvalidCar,
    InvalidCid,
    StoreError,
    StoreFull,
    StoreUnavailable,
)

_UPLOAD_BYTES = 16 << 20
_CIDS_PER_CALL = 4096
_FETCH_PER_CALL = 512


class HttpBlockStore:
    """BlockStore on a remote service. `token` is asked before each call, so the caller can renew it."""

    def __init__(self, base_url: str, token: Callable[[], str], *, timeout_s: float = 60.0) -> None:
        self._token = token
        self._client = httpx.Client(
            base_url=base_url.rstrip("/") + "/",
            timeout=httpx.Timeout(timeout_s, connect=10.0),
            limits=httpx.Limits(max_connections=16, max_keepalive_connections=8),
            follow_redirects=False,
        )

    def put_many(self, blocks: Iterable[tuple[CID, bytes]]) -> None:
        body: list[bytes] = []
        size = 0
        for cid, data in blocks:
            check_block(cid, data)
            body.append(car_section(cid, data))
            size += len(data)
            if size >= _UPLOAD_BYTES:
                self._upload(body)
                body, size = [], 0
        if body:
            self._upload(body)

    def get_many(self, cids: Iterable[CID]) -> Iterator[tuple[CID, bytes]]:
        remaining = iter(cids)
        while chunk := list(islice(remaining, _FETCH_PER_CALL)):
            yield from self._fetch(chunk)

    def has(self, cids: Iterable[CID]) -> set[CID]:
        wanted = list(cids)
        present: set[CID] = set()
        for start in range(0, len(wanted), _CIDS_PER_CALL):
            chunk = wanted[start : start + _CIDS_PER_CALL]
            missing = self._call("POST", "v1/blocks/probe", json={"cids": chunk}).json()["missing"]
            present |= set(chunk).difference(missing)
        return present

    def delete(self, cids: Iterable[CID]) -> None:
        remaining = iter(cids)
        while chunk := list(islice(remaining, _CIDS_PER_CALL)):
            self._call("POST", "v1/blocks/delete", json={"cids": chunk})

    def cids(self) -> Iterator[CID]:
        with self._stream("GET", "v1/blocks") as response:
            for line in response.iter_lines():
                yield parse_cid(line)

    def size(self, cid: CID) -> int:
        response = self._call("HEAD", f"ipfs/{cid}", headers={"Accept": "application/vnd.ipld.raw"}, cid=cid)
        return int(response.headers["Content-Length"])

    def collect(self, live: Iterable[CID]) -> GcReport:
        """Garbage collection on the service (BlockService.collect); needs the gc scope. `live` is streamed."""

        def body() -> Iterator[bytes]:
            count = 0
            for cid in live:
                count += 1
                yield f"{cid}\n".encode("ascii")
            # The count comes last: a list that broke off is refused instead of taken for the whole.
            yield f"end {count}\n".encode("ascii")

        report = self._call("POST", "v1/gc", content=body(), timeout=None).json()
        return GcReport(**{name: int(report[name]) for name in ("live", "condemned", "deleted", "freed_bytes")})

    def close(self) -> None:
        self._client.close()

    def _upload(self, sections: list[bytes]) -> None:
        content = car_header() + b"".join(sections)
        self._call("POST", "v1/blocks", content=content, headers={"Content-Type": "application/vnd.ipld.car"})

    def _fetch(self, chunk: list[CID]) -> Iterator[tuple[CID, bytes]]:
        reader = CarReader()
        expected = iter(chunk)
        count = 0
        try:
            with self._stream("POST", "v1/blocks/fetch", json={"cids": chunk}) as response:
                for part in response.iter_bytes():
                    for cid, data in reader.feed(part):
                        if cid != next(expected, None):
                            raise StoreUnavailable("the store answered with a block that was not asked for")
                        if not matches(cid, data):
                            raise BlockCorrupt(cid, "the bytes that the store sent do not hash to its name")
                        count += 1
                        yield cid, data
                reader.finish()
        except (InvalidCar, InvalidCid) as error:
            raise StoreUnavailable("the store's answer was cut short or garbled") from error
        if count != len(chunk):
            raise StoreUnavailable("the store sent fewer blocks than were asked for")

    def _call(self, method: str, path: str, *, cid: CID | None = None, **request: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self._token()}", **request.pop("headers", {})}
        try:
            response = self._client.request(method, path, headers=headers, **request)
        except httpx.HTTPError as error:
            raise StoreUnavailable(f"the block store did not answer ({type(error).__name__})") from error
        if not response.is_success:
            raise _error(response, cid)
        return response

    @contextmanager
    def _stream(self, method: str, path: str, **request: Any) -> Iterator[httpx.Response]:
        headers = {"Authorization": f"Bearer {self._token()}"}
        try:
            with self._client.stream(method, path, headers=headers, **request) as response:
                if not response.is_success:
                    response.read()
                    raise _error(response, None)
                yield response
        except httpx.HTTPError as error:
            raise StoreUnavailable(f"the block store broke off ({type(error).__name__})") from error


def _error(response: httpx.Response, cid: CID | None) -> StoreError:
    """The error that the service raised, from its problem document and status."""
    try:
        problem = response.json()
    except ValueError:
        problem = {}
    if not isinstance(problem, dict):
        problem = {}
    detail = str(problem.get("detail", f"the block store answered {response.status_code}"))[:500]
    named = str(problem.get("cid", cid or ""))
    code = str(problem.get("type", "")).rpartition(":")[2]
    if response.status_code in (401, 403):
        return AccessDenied(detail)
    if response.status_code == 404 and named:
        return BlockNotFound(named)
    if code == "block-corrupt":
        return BlockCorrupt(named, detail)
    if response.status_code == 413:
        return BlockTooLarge(named, 0, 0) if named else StoreError(detail)
    if response.status_code == 507:
        return StoreFull(detail)
    if response.status_code >= 500 or response.status_code in (408, 429):
        return StoreUnavailable(detail)
    return StoreError(detail)
