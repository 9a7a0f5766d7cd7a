"""The HTTP service as strangers see it: formats, status codes, tokens, limits. Served by uvicorn on a free port."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from everlease.domain.manifest import CID
from everlease.store.base import put_block
from everlease.store.block_service import ServiceLimits
from everlease.store.car import CarReader, car_header, car_section
from everlease.store.cid import cid_of
from everlease.store.errors import AccessDenied, BlockCorrupt, StoreFull, StoreUnavailable
from everlease.store.http import HttpBlockStore
from everlease.store.serve import LocalService, open_local_service
from everlease.store.tokens import Scope, issue_token, verify_token

SECRET = b"s" * 32
NOW = 1_000_000.0
RAW, CAR = {"Accept": "application/vnd.ipld.raw"}, {"Accept": "application/vnd.ipld.car"}


def token(*scopes: Scope, ttl_s: float = 60, now: float = NOW) -> str:
    return issue_token(SECRET, subject="0xnode", scopes=scopes, session="s", now=now, ttl_s=ttl_s, job="0xjob")


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[LocalService, str]]:
    limits = ServiceLimits(session_quota_bytes=3 << 20)
    local = open_local_service(tmp_path / "store", SECRET, limits=limits, clock=lambda: NOW)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()  # whoever connects before the server takes it waits
        server = uvicorn.Server(uvicorn.Config(local.app, log_level="critical"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield local, f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()
    local.close()


@pytest.fixture
def client(served: tuple[LocalService, str]) -> Iterator[Callable[..., httpx.Response]]:
    with httpx.Client(base_url=served[1], timeout=20) as http:

        def call(method: str, path: str, *scopes: Scope, **more: Any) -> httpx.Response:
            auth = {"Authorization": f"Bearer {token(*scopes)}"} if scopes else {}
            return http.request(method, path, headers=auth | more.pop("headers", {}), **more)

        yield call


Client = Callable[..., httpx.Response]
BOTH = (Scope.READ, Scope.WRITE)


def put(client: Client, data: bytes) -> CID:
    cid = cid_of(data)
    assert client("PUT", f"/v1/blocks/{cid}", Scope.WRITE, content=data).status_code == 201
    return cid


def test_a_raw_block_is_served_as_a_trustless_gateway_does(client: Client) -> None:
    cid = put(client, b"hello")
    for response in (
        client("GET", f"/ipfs/{cid}", Scope.READ, headers=RAW),
        client("GET", f"/ipfs/{cid}?format=raw", Scope.READ),
    ):
        assert response.content == b"hello"
        assert response.headers["Content-Type"] == "application/vnd.ipld.raw"
        assert response.headers["ETag"] == f'"{cid}.raw"'
        assert "immutable" in response.headers["Cache-Control"]
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["X-Ipfs-Path"] == f"/ipfs/{cid}"
    head = client("HEAD", f"/ipfs/{cid}", Scope.READ, headers=RAW)
    assert (head.status_code, head.headers["Content-Length"], head.content) == (200, "5", b"")
    again = client("GET", f"/ipfs/{cid}", Scope.READ, headers=RAW | {"If-None-Match": f'"{cid}.raw"'})
    assert (again.status_code, again.content) == (304, b"")


def test_a_car_of_one_block_has_it_as_root(client: Client) -> None:
    cid = put(client, b"hello")
    response = client("GET", f"/ipfs/{cid}", Scope.READ, headers=CAR)
    reader = CarReader()
    assert list(reader.feed(response.content)) == [(cid, b"hello")]
    assert reader.roots == (cid,)
    assert response.headers["Content-Type"].startswith("application/vnd.ipld.car")


@pytest.mark.parametrize(
    ("method", "path", "scopes", "more", "status"),
    [
        ("GET", "/ipfs/{cid}", (), {"headers": RAW}, 401),
        ("GET", "/ipfs/{cid}", (Scope.WRITE,), {"headers": RAW}, 403),
        ("GET", "/ipfs/{cid}", (Scope.READ,), {"headers": {"Accept": "text/html"}}, 406),
        ("GET", "/ipfs/{cid}?format=tar", (Scope.READ,), {}, 406),
        ("GET", "/ipfs/notacid", (Scope.READ,), {"headers": RAW}, 400),
        ("GET", "/ipfs/{absent}", (Scope.READ,), {"headers": RAW}, 404),
        ("HEAD", "/ipfs/{absent}", (Scope.READ,), {"headers": RAW}, 404),
        ("PUT", "/v1/blocks/{absent}", (Scope.READ,), {"content": b"x"}, 403),
        ("PUT", "/v1/blocks/{absent}", (Scope.WRITE,), {"content": b"not it"}, 400),
        ("PUT", "/v1/blocks/{absent}", (Scope.WRITE,), {"content": bytes((16 << 20) + 1)}, 413),
        ("POST", "/v1/blocks", (Scope.WRITE,), {"content": b"not a car"}, 400),
        ("POST", "/v1/blocks", (Scope.WRITE,), {"content": b""}, 400),
        ("POST", "/v1/blocks/probe", (Scope.READ,), {"content": b"{"}, 400),
        ("POST", "/v1/blocks/probe", (Scope.READ,), {"json": {"cids": [1]}}, 400),
        ("POST", "/v1/blocks/probe", (Scope.READ,), {"json": {"cids": ["x"]}}, 400),
        ("POST", "/v1/blocks/probe", (Scope.READ,), {"content": b"[" * 200_000}, 400),
        ("POST", "/v1/blocks/fetch", (Scope.READ,), {"json": {"cids": ["{absent}"]}}, 400),
        ("POST", "/v1/blocks/delete", (Scope.READ, Scope.WRITE), {"json": {"cids": []}}, 403),
        ("GET", "/v1/blocks", (Scope.READ, Scope.WRITE), {}, 403),
        ("POST", "/v1/gc", (Scope.WRITE,), {"content": b"end 0\n"}, 403),
        ("POST", "/v1/gc", (Scope.GC,), {"content": b""}, 400),
        ("POST", "/v1/gc", (Scope.GC,), {"content": b"end 1\n"}, 400),
        ("POST", "/v1/gc", (Scope.GC,), {"content": b"x" * 500}, 400),
    ],
)
def test_bad_requests_get_a_problem_document(
    client: Client, method: str, path: str, scopes: tuple[Scope, ...], more: dict[str, object], status: int
) -> None:
    cid = put(client, b"there")
    response = client(method, path.format(cid=cid, absent=cid_of(b"absent")), *scopes, **more)
    assert response.status_code == status
    assert response.headers["Content-Type"] == "application/problem+json"
    if method != "HEAD":
        assert {"type", "title", "status", "detail"} <= set(response.json())


def test_a_mismatch_names_the_cid_and_stores_nothing(client: Client) -> None:
    cid = cid_of(b"a")
    body = car_header() + car_section(cid, b"b")
    response = client("POST", "/v1/blocks", Scope.WRITE, content=body)
    assert (response.status_code, response.json()["cid"]) == (400, cid)
    assert client("POST", "/v1/blocks/probe", *BOTH, json={"cids": [cid]}).json() == {"missing": [cid]}


def test_whole_blocks_of_a_stream_cut_short_are_kept(client: Client) -> None:
    whole, torn = b"w" * 1000, b"t" * 1000
    body = car_header() + car_section(cid_of(whole), whole) + car_section(cid_of(torn), torn)[:-1]
    assert client("POST", "/v1/blocks", Scope.WRITE, content=body).status_code == 400
    missing = client("POST", "/v1/blocks/probe", *BOTH, json={"cids": [cid_of(whole), cid_of(torn)]}).json()["missing"]
    assert missing == [cid_of(torn)]


def test_gc_over_http_wants_the_whole_list(client: Client) -> None:
    cid = put(client, b"live")
    cut = client("POST", "/v1/gc", Scope.GC, content=f"{cid}\n".encode())
    assert cut.status_code == 400
    report = client("POST", "/v1/gc", Scope.GC, content=f"{cid}\nend 1\n".encode())
    assert report.json()["live"] == 1


def test_the_client_collects_garbage_with_the_gc_scope_only(served: tuple[LocalService, str]) -> None:
    store = HttpBlockStore(served[1], lambda: token(*Scope))
    cids = [put_block(store, os.urandom(100)) for _ in range(30)]
    report = store.collect(iter(cids[:20]))
    assert (report.live, report.condemned, report.deleted) == (20, 0, 0)
    served[0].ledger.expire(NOW + 1e9)
    assert store.collect(cids[:20]).condemned == 10
    store.close()
    other = HttpBlockStore(served[1], lambda: token(*BOTH))
    with pytest.raises(AccessDenied):
        other.collect([])

    def broken() -> Iterator[CID]:
        yield cids[0]
        raise RuntimeError("the database went away")

    collector = HttpBlockStore(served[1], lambda: token(Scope.GC))
    with pytest.raises(RuntimeError):
        collector.collect(broken())
    assert served[0].ledger.condemned() == 10
    collector.close()
    other.close()


def test_a_session_above_its_quota_gets_store_full(served: tuple[LocalService, str]) -> None:
    store = HttpBlockStore(served[1], lambda: token(*BOTH))
    data = [os.urandom(1 << 20) for _ in range(4)]
    with pytest.raises(StoreFull):
        store.put_many([(cid_of(item), item) for item in data])
    store.close()


def test_a_block_damaged_in_the_store_is_named_to_the_client(served: tuple[LocalService, str], tmp_path: Path) -> None:
    store = HttpBlockStore(served[1], lambda: token(*BOTH))
    items = [os.urandom(1000) for _ in range(3)]
    batch = [(cid_of(item), item) for item in items]
    store.put_many(batch)
    with (tmp_path / "store/packs/00000001.pack").open("r+b") as pack:
        pack.seek(44 + 1000 + 44 + 10)
        pack.write(b"rot")
    with pytest.raises(BlockCorrupt) as caught:
        list(store.get_many([cid for cid, _ in batch]))
    assert caught.value.cid == batch[1][0]
    store.close()


def test_the_client_maps_refusals_and_silence(served: tuple[LocalService, str]) -> None:
    denied = HttpBlockStore(served[1], lambda: token(Scope.READ))
    with pytest.raises(AccessDenied):
        denied.put_many([(cid_of(b"x"), b"x")])
    denied.close()
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        gone = HttpBlockStore(f"http://127.0.0.1:{port}", lambda: token(Scope.READ), timeout_s=2)
        with pytest.raises(StoreUnavailable) as caught:
            gone.has([cid_of(b"x")])
        assert caught.value.retryable
        gone.close()


def test_tokens_are_checked_for_signature_audience_expiry_and_scope() -> None:
    good = verify_token(SECRET, token(Scope.READ), now=NOW)
    assert (good.subject, good.job, good.session) == ("0xnode", "0xjob", "s")
    with pytest.raises(AccessDenied):
        good.require(Scope.WRITE)
    for bad, now in (
        (token(Scope.READ), NOW + 61),
        (token(Scope.READ)[:-2], NOW),
        ("", NOW),
        ("a.b.c", NOW),
        (issue_token(b"o" * 32, subject="x", scopes=[Scope.READ], session="s", now=NOW, ttl_s=60), NOW),
    ):
        with pytest.raises(AccessDenied):
            verify_token(SECRET, bad, now=now)
    with pytest.raises(ValueError, match="32 bytes"):
        issue_token(b"short", subject="x", scopes=[], session="s", now=NOW, ttl_s=1)


def test_an_unsigned_token_is_refused() -> None:
    import jwt

    claims = {"aud": "everlease-store", "sub": "x", "scope": "gc", "session": "s", "exp": NOW + 60}
    with pytest.raises(AccessDenied):
        verify_token(SECRET, jwt.encode(claims, "", algorithm="none"), now=NOW)


def test_a_token_may_bound_its_session_below_the_services_limit(served: tuple[LocalService, str]) -> None:
    _, url = served
    small = issue_token(
        SECRET, subject="0xtenant", scopes=list(Scope), session="u", now=NOW, ttl_s=60, quota_bytes=100_000
    )
    assert verify_token(SECRET, small, now=NOW).quota_bytes == 100_000
    store = HttpBlockStore(url, lambda: small)
    put_block(store, b"a" * 60_000)
    with pytest.raises(StoreFull):
        put_block(store, b"b" * 60_000)
    store.close()
