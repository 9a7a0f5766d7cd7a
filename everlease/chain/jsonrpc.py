"""JSON-RPC 2.0 over HTTP: batches, several endpoints of one chain, back-off, bounded answers, typed errors."""

import itertools
import json
import time
from collections.abc import Callable, Collection, Sequence
from typing import Any
from urllib.parse import urlsplit

import httpx

from everlease.chain.answers import result_of
from everlease.chain.endpoints import PROBE_TIMEOUT_S, Endpoints
from everlease.chain.errors import ChainError, RpcRefused, RpcUnavailable, WrongChain

MAX_ANSWER_BYTES = 64 * 1024 * 1024
MAX_BATCH = 100
MAX_WAIT_S = 10.0

_THROTTLED = ("rate limit", "too many requests", "request limit", "capacity")
_OWN_FAULT = frozenset({-32603, -32002})
"""Internal error, resource unavailable: the answer if every endpoint gives it, else this one's trouble."""


class _EndpointDown(Exception):
    """This endpoint can't answer now; another may. ``wait`` is what it asked for, seconds."""

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.wait = wait


class _ForeignChain(_EndpointDown):
    """This endpoint serves another chain than ours."""

    def __init__(self, found: int, expected: int) -> None:
        super().__init__(f"it serves chain {found} instead of {expected}")
        self.found = found


class JsonRpc:
    """A client of one chain behind one or more URLs. Thread-safe; connects on first use.

    ``chain_id``: each endpoint is asked for its own before it is used; one of another chain is never used, and if all
    are, WrongChain is raised. ``rounds``: how often all endpoints are tried before RpcUnavailable; between rounds it
    sleeps, doubling from 0.2 s, or as long as a 429 asks (at most 10 s). ``timeout`` is per request, seconds.
    ``probe_every``: seconds between looks at every endpoint's head, in the background.
    """

    def __init__(
        self,
        urls: Sequence[str],
        *,
        chain_id: int | None = None,
        timeout: float = 10.0,
        rounds: int = 3,
        probe_every: float = 10.0,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        if not urls:
            raise ValueError("give at least one RPC URL")
        self._client = httpx.Client(headers={"content-type": "application/json"})
        self._chain_id = chain_id
        self._timeout = timeout
        self._rounds = rounds
        self._sleep = sleep
        self._ids = itertools.count(1)
        self._endpoints = Endpoints(urls, self._head, every=probe_every)

    def close(self) -> None:
        """Close every connection."""
        self._endpoints.close()
        self._client.close()

    def call(self, method: str, *params: Any) -> Any:
        """One call; raises a ChainError."""
        answer = self.batch([(method, params)])[0]
        if isinstance(answer, ChainError):
            raise answer
        return answer

    def batch(self, calls: Sequence[tuple[str, Sequence[Any]]]) -> list[Any]:
        """Many calls, in requests of at most 100; an item is its result or the ChainError that answered it."""
        results: list[Any] = []
        for start in range(0, len(calls), MAX_BATCH):
            results.extend(self._deliver(calls[start : start + MAX_BATCH]))
        return results

    def _deliver(self, calls: Sequence[tuple[str, Sequence[Any]]]) -> list[Any]:
        failures: dict[str, _EndpointDown] = {}
        for attempt in range(self._rounds):
            faulty = None
            for url in self._endpoints.in_order():
                try:
                    results = self._ask(url, calls)
                except _EndpointDown as error:
                    self._endpoints.failed(url)
                    failures[url] = error
                    continue
                self._endpoints.worked(url)
                if not any(isinstance(item, RpcRefused) and item.code in _OWN_FAULT for item in results):
                    return results
                faulty = results
            if faulty is not None:
                return faulty
            _raise_if_foreign(failures.values(), self._chain_id)
            if attempt + 1 < self._rounds:
                wait = max(0.2 * 2**attempt, *(error.wait for error in failures.values()))
                self._sleep(min(wait, MAX_WAIT_S))
        raise RpcUnavailable(calls[0][0], "; ".join(f"{_host(url)}: {error}" for url, error in failures.items()))

    def _ask(self, url: str, calls: Sequence[tuple[str, Sequence[Any]]]) -> list[Any]:
        if self._chain_id is not None and not self._endpoints.is_checked(url):
            self._check_chain(url, self._timeout)
        return self._request(url, calls, self._timeout)

    def _head(self, url: str) -> int:
        """The probe: its newest block's number, after its chain id where that must be known."""
        if self._chain_id is not None:
            self._check_chain(url, PROBE_TIMEOUT_S)
        (answer,) = self._request(url, [("eth_blockNumber", ())], PROBE_TIMEOUT_S)
        return int(answer, 16)

    def _check_chain(self, url: str, timeout: float) -> None:
        assert self._chain_id is not None
        (answer,) = self._request(url, [("eth_chainId", ())], timeout)
        try:
            found = int(answer, 16)
        except (TypeError, ValueError) as error:
            raise _EndpointDown(f"eth_chainId answered {answer!r:.100}") from error
        if found != self._chain_id:
            raise _ForeignChain(found, self._chain_id)
        self._endpoints.checked(url)

    def _request(self, url: str, calls: Sequence[tuple[str, Sequence[Any]]], timeout: float) -> list[Any]:
        requests = [
            {"jsonrpc": "2.0", "id": next(self._ids), "method": method, "params": list(params)}
            for method, params in calls
        ]
        answer = self._post(url, json.dumps(requests if len(requests) > 1 else requests[0]), timeout)
        items = [item for item in (answer if isinstance(answer, list) else [answer]) if isinstance(item, dict)]
        by_id = {item["id"]: item for item in items if isinstance(item.get("id"), int)}
        if not all(request["id"] in by_id for request in requests):
            error = items[0].get("error") if items else None
            raise _EndpointDown(f"an answer is missing: {error!r:.200}" if error else "an answer is missing")
        return [_result(method, by_id[request["id"]]) for (method, _), request in zip(calls, requests, strict=True)]

    def _post(self, url: str, body: str, timeout: float) -> Any:
        deadline = time.monotonic() + timeout
        try:
            with self._client.stream("POST", url, content=body, timeout=timeout) as response:
                if response.status_code == 429:
                    raise _EndpointDown("the endpoint throttles us (429)", _retry_after(response))
                if response.status_code not in (200, 400):
                    raise _EndpointDown(f"HTTP {response.status_code}")
                content = bytearray()
                for chunk in response.iter_bytes():
                    content += chunk
                    if len(content) > MAX_ANSWER_BYTES:
                        raise _EndpointDown("the answer is larger than 64 MiB")
                    if time.monotonic() > deadline:
                        raise _EndpointDown(f"the answer took longer than {timeout:g} s")
        except httpx.HTTPError as error:
            raise _EndpointDown(f"{type(error).__name__}: {error}") from error
        try:
            return json.loads(content)
        except ValueError as error:
            raise _EndpointDown(f"HTTP {response.status_code} without JSON") from error


def _raise_if_foreign(failures: Collection[_EndpointDown], expected: int | None) -> None:
    found = [error.found for error in failures if isinstance(error, _ForeignChain)]
    if expected is not None and found and len(found) == len(failures):
        raise WrongChain(found[0], expected)


def _host(url: str) -> str:
    """Host and port; the rest of a URL often holds a key."""
    parts = urlsplit(url)
    return parts.netloc.rpartition("@")[2]


def _retry_after(response: httpx.Response) -> float:
    try:
        return float(response.headers.get("retry-after", "1"))
    except ValueError:
        return 1.0


def _result(method: str, item: dict[str, Any]) -> Any:
    """An item's result, or its error as a ChainError; throttling counts as an endpoint that is down."""
    error = item.get("error")
    if isinstance(error, dict):
        message = str(error.get("message", "")).lower()
        throttled = method != "eth_getLogs" and any(part in message for part in _THROTTLED)
        if throttled or error.get("code") == 429:
            raise _EndpointDown(f"the endpoint throttles us: {message[:500]}", 1.0)
    return result_of(method, item)
