"""JSON-RPC 2.0 over HTTP: batches, several endpoints, back-off, bounded answers, typed errors."""

import itertools
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import httpx
import msgspec

from everlease.chain.errors import (
    AlreadyKnown,
    BadAnswer,
    ChainError,
    InsufficientFunds,
    NonceTooLow,
    RpcRefused,
    RpcUnavailable,
    TooManyResults,
    Underpriced,
)
from everlease.chain.reverts import decode_revert

MAX_ANSWER_BYTES = 64 * 1024 * 1024
MAX_BATCH = 100
MAX_WAIT_S = 10.0

_SENDING: tuple[tuple[str, type[RpcRefused]], ...] = (
    ("nonce too low", NonceTooLow),
    ("already known", AlreadyKnown),
    ("already imported", AlreadyKnown),
    ("known transaction", AlreadyKnown),
    ("underpriced", Underpriced),
    ("fee too low", Underpriced),
    ("less than block base fee", Underpriced),
    ("insufficient funds", InsufficientFunds),
)
"""What geth, Nethermind, Erigon, Besu, Reth and Anvil say, in lower case."""
_TOO_MANY = ("too many", "more than", "limit", "block range", "response size", "too large", "range is too")
_THROTTLED = ("rate limit", "too many requests", "request limit", "capacity")


class _EndpointDown(Exception):
    """This endpoint can't answer now; another may. ``wait`` is what it asked for, seconds."""

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.wait = wait


class _AnswerTooLarge(Exception):
    """The endpoint began an answer that is beyond what we hold in memory."""


class _Item(msgspec.Struct):
    """One answer; its result stays text until it is known what it has to be."""

    id: Any = None
    result: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    error: Any = None


_ITEMS: msgspec.json.Decoder[list[_Item] | _Item] = msgspec.json.Decoder(list[_Item] | _Item)
_ANYTHING: msgspec.json.Decoder[Any] = msgspec.json.Decoder()


class JsonRpc:
    """A client of one chain behind one or more URLs. Thread-safe; connects on first use.

    ``rounds``: how often all endpoints are tried before RpcUnavailable; between rounds it sleeps, doubling from 0.2 s,
    or as long as a 429 asks (at most 10 s). ``timeout`` is per request, seconds.
    """

    def __init__(
        self,
        urls: Sequence[str],
        *,
        timeout: float = 10.0,
        rounds: int = 3,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        if not urls:
            raise ValueError("give at least one RPC URL")
        self._urls = tuple(urls)
        self._client = httpx.Client(timeout=timeout, headers={"content-type": "application/json"})
        self._rounds = rounds
        self._sleep = sleep
        self._ids = itertools.count(1)
        self._preferred = 0
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close every connection."""
        self._client.close()

    def call(self, method: str, *params: Any, into: msgspec.json.Decoder[Any] = _ANYTHING) -> Any:
        """One call; raises a ChainError. ``into`` says what the result must be: BadAnswer if it is something else."""
        answer = self.batch([(method, params)], into=into)[0]
        if isinstance(answer, ChainError):
            raise answer
        return answer

    def batch(
        self, calls: Sequence[tuple[str, Sequence[Any]]], *, into: msgspec.json.Decoder[Any] = _ANYTHING
    ) -> list[Any]:
        """Many calls, in requests of at most 100; an item is its result or the ChainError that answered it."""
        results: list[Any] = []
        for start in range(0, len(calls), MAX_BATCH):
            part = calls[start : start + MAX_BATCH]
            items = self._deliver(part)
            results += [_result(method, item, into) for (method, _), item in zip(part, items, strict=True)]
        return results

    def _deliver(self, calls: Sequence[tuple[str, Sequence[Any]]]) -> list[_Item]:
        last = ""
        for attempt in range(self._rounds):
            wait = 0.2 * 2**attempt
            for offset in range(len(self._urls)):
                index = (self._preferred + offset) % len(self._urls)
                try:
                    results = self._request(self._urls[index], calls)
                except _EndpointDown as error:
                    last = str(error)
                    wait = max(wait, error.wait)
                    continue
                with self._lock:
                    self._preferred = index
                return results
            if attempt + 1 < self._rounds:
                self._sleep(min(wait, MAX_WAIT_S))
        raise RpcUnavailable(calls[0][0], last)

    def _request(self, url: str, calls: Sequence[tuple[str, Sequence[Any]]]) -> list[_Item]:
        requests = [
            {"jsonrpc": "2.0", "id": next(self._ids), "method": method, "params": list(params)}
            for method, params in calls
        ]
        try:
            answer = self._post(url, msgspec.json.encode(requests if len(requests) > 1 else requests[0]))
        except _AnswerTooLarge as error:
            if calls[0][0] == "eth_getLogs":
                return [_Item(error={"code": -32005, "message": str(error)}) for _ in calls]
            raise _EndpointDown(str(error)) from error
        items = answer if isinstance(answer, list) else [answer]
        if len(requests) == 1:
            ordered = items[:1]
        else:
            by_id = {item.id: item for item in items if isinstance(item.id, int)}
            ordered = [by_id[request["id"]] for request in requests if request["id"] in by_id]
        if len(ordered) != len(requests):
            raise _EndpointDown("an answer is missing")
        for (method, _), item in zip(calls, ordered, strict=True):
            _check_throttle(method, item.error)
        return ordered

    def _post(self, url: str, body: bytes) -> list[_Item] | _Item:
        try:
            with self._client.stream("POST", url, content=body) as response:
                if response.status_code == 429:
                    raise _EndpointDown("the endpoint throttles us (429)", _retry_after(response))
                content = bytearray()
                for chunk in response.iter_bytes():
                    content += chunk
                    if len(content) > MAX_ANSWER_BYTES:
                        raise _AnswerTooLarge("the answer is larger than 64 MiB")
        except httpx.HTTPError as error:
            raise _EndpointDown(f"{type(error).__name__}: {error}") from error
        try:
            return _ITEMS.decode(content)
        except msgspec.DecodeError as error:
            raise _EndpointDown(f"HTTP {response.status_code} without JSON-RPC") from error


def _retry_after(response: httpx.Response) -> float:
    try:
        return float(response.headers.get("retry-after", "1"))
    except ValueError:
        return 1.0


def _check_throttle(method: str, error: Any) -> None:
    """Throttling counts as an endpoint that is down."""
    if not isinstance(error, dict):
        return
    message = str(error.get("message", ""))[:500]
    if error.get("code") == 429 or (method != "eth_getLogs" and any(part in message.lower() for part in _THROTTLED)):
        raise _EndpointDown(f"the endpoint throttles us: {message}", 1.0)


def _result(method: str, item: _Item, into: msgspec.json.Decoder[Any]) -> Any:
    """An item's result, or its error as a ChainError."""
    if item.error is not None:
        return _refusal(method, item.error)
    if isinstance(item.result, msgspec.UnsetType):
        return BadAnswer(f"{method}: neither result nor error in the answer")
    try:
        return into.decode(item.result)
    except msgspec.DecodeError as error:
        return BadAnswer(f"{method}: {error}")


def _refusal(method: str, error: Any) -> ChainError:
    if not isinstance(error, dict):
        return RpcRefused(method, 0, str(error)[:500])
    code, message, data = error.get("code", 0), str(error.get("message", ""))[:500], error.get("data")
    text = message.lower()
    if method == "eth_getLogs":
        kind = TooManyResults if code == -32005 or any(part in text for part in _TOO_MANY) else RpcRefused
        return kind(method, code, message, data)
    if method == "eth_sendRawTransaction":
        for part, refused in _SENDING:
            if part in text:
                return refused(method, code, message, data)
    if code == 3 or "revert" in text:
        return decode_revert(data, message)
    return RpcRefused(method, code, message, data)
