"""JSON-RPC 2.0 over HTTP: batches, several endpoints of one chain, back-off, bounded answers, typed errors."""

import itertools
import time
from collections.abc import Callable, Collection, Sequence
from typing import Any
from urllib.parse import urlsplit

import httpx
import msgspec

from everlease.chain.answers import ANYTHING, ITEMS, Item, result_of
from everlease.chain.endpoints import PROBE_TIMEOUT_S, Endpoints
from everlease.chain.errors import OWN_FAULT, ChainError, RpcUnavailable, WrongChain

MAX_ANSWER_BYTES = 64 * 1024 * 1024
MAX_BATCH = 100
MAX_WAIT_S = 10.0

_THROTTLED = ("rate limit", "too many requests", "request limit", "capacity")


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


class _AnswerTooLarge(Exception):
    """The endpoint began an answer that is beyond what we hold in memory."""


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

    def call(self, method: str, *params: Any, into: msgspec.json.Decoder[Any] = ANYTHING) -> Any:
        """One call; raises a ChainError. ``into`` says what the result must be: BadAnswer if it is something else."""
        answer = self.batch([(method, params)], into=into)[0]
        if isinstance(answer, ChainError):
            raise answer
        return answer

    def batch(
        self, calls: Sequence[tuple[str, Sequence[Any]]], *, into: msgspec.json.Decoder[Any] = ANYTHING
    ) -> list[Any]:
        """Many calls, in requests of at most 100; an item is its result or the ChainError that answered it."""
        results: list[Any] = []
        for start in range(0, len(calls), MAX_BATCH):
            part = calls[start : start + MAX_BATCH]
            items = self._deliver(part)
            results += [result_of(method, item, into) for (method, _), item in zip(part, items, strict=True)]
        return results

    def _deliver(self, calls: Sequence[tuple[str, Sequence[Any]]]) -> list[Item]:
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
                if not any(map(_is_own_fault, results)):
                    return results
                faulty = results
            if faulty is not None:
                return faulty
            _raise_if_foreign(failures.values(), self._chain_id)
            if attempt + 1 < self._rounds:
                wait = max(0.2 * 2**attempt, *(error.wait for error in failures.values()))
                self._sleep(min(wait, MAX_WAIT_S))
        said = (f"{_host(url)}: {failures[url]}" for url in self._endpoints.urls)
        raise RpcUnavailable(calls[0][0], "; ".join(said))

    def _ask(self, url: str, calls: Sequence[tuple[str, Sequence[Any]]]) -> list[Item]:
        if self._chain_id is not None and not self._endpoints.is_checked(url):
            self._check_chain(url, self._timeout)
        return self._request(url, calls, self._timeout)

    def _head(self, url: str) -> int:
        """The probe: its newest block's number, after its chain id where that must be known."""
        if self._chain_id is not None:
            self._check_chain(url, PROBE_TIMEOUT_S)
        (item,) = self._request(url, [("eth_blockNumber", ())], PROBE_TIMEOUT_S)
        return int(result_of("eth_blockNumber", item), 16)

    def _check_chain(self, url: str, timeout: float) -> None:
        assert self._chain_id is not None
        (item,) = self._request(url, [("eth_chainId", ())], timeout)
        answer = result_of("eth_chainId", item)
        try:
            found = int(answer, 16)
        except (TypeError, ValueError) as error:
            raise _EndpointDown(f"eth_chainId answered {answer!r:.100}") from error
        if found != self._chain_id:
            raise _ForeignChain(found, self._chain_id)
        self._endpoints.checked(url)

    def _request(self, url: str, calls: Sequence[tuple[str, Sequence[Any]]], timeout: float) -> list[Item]:
        ids = [next(self._ids) for _ in calls]
        requests = [
            {"jsonrpc": "2.0", "id": number, "method": method, "params": list(params)}
            for number, (method, params) in zip(ids, calls, strict=True)
        ]
        try:
            answer = self._post(url, msgspec.json.encode(requests if len(requests) > 1 else requests[0]), timeout)
        except _AnswerTooLarge as error:
            if calls[0][0] == "eth_getLogs":
                return [Item(error={"code": -32005, "message": str(error)}) for _ in calls]
            raise _EndpointDown(str(error)) from error
        items = answer if isinstance(answer, list) else [answer]
        by_id = {item.id: item for item in items if isinstance(item.id, int)}
        if not all(number in by_id for number in ids):
            problem = items[0].error if items else None
            raise _EndpointDown(f"an answer is missing: {problem!r:.200}" if problem else "an answer is missing")
        ordered = [by_id[number] for number in ids]
        for (method, _), item in zip(calls, ordered, strict=True):
            _check_throttle(method, item.error)
        return ordered

    def _post(self, url: str, body: bytes, timeout: float) -> list[Item] | Item:
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
                        raise _AnswerTooLarge("the answer is larger than 64 MiB")
                    if time.monotonic() > deadline:
                        raise _EndpointDown(f"the answer took longer than {timeout:g} s")
        except httpx.HTTPError as error:
            raise _EndpointDown(f"{type(error).__name__}: {error}") from error
        try:
            return ITEMS.decode(content)
        except msgspec.DecodeError as error:
            raise _EndpointDown(f"HTTP {response.status_code} without JSON-RPC") from error


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


def _is_own_fault(item: Item) -> bool:
    """The answer if every endpoint gives it, else this one's trouble."""
    return isinstance(item.error, dict) and item.error.get("code") in OWN_FAULT


def _check_throttle(method: str, error: Any) -> None:
    """Throttling counts as an endpoint that is down."""
    if not isinstance(error, dict):
        return
    message = str(error.get("message", ""))[:500]
    throttled = method != "eth_getLogs" and any(part in message.lower() for part in _THROTTLED)
    if throttled or error.get("code") == 429:
        raise _EndpointDown(f"the endpoint throttles us: {message}", 1.0)
