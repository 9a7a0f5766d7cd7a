"""The JSON-RPC client against a real HTTP server that misbehaves in every way we know."""

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from eth_abi import abi

from everlease.chain import jsonrpc
from everlease.chain.endpoints import Endpoints
from everlease.chain.errors import (
    AlreadyKnown,
    BadAnswer,
    CallReverted,
    InsufficientFunds,
    NonceTooLow,
    RpcRefused,
    RpcUnavailable,
    TooManyResults,
    Underpriced,
    WrongChain,
)
from everlease.chain.jsonrpc import JsonRpc
from everlease.chain.reverts import decode_revert
from everlease.chain.rpc import RpcChain
from tests.support.rpc_endpoints import Endpoint, error, http, result

NEVER = float("inf")


@pytest.fixture
def endpoints() -> Iterator[list[Endpoint]]:
    found = [Endpoint(), Endpoint()]
    yield found
    for endpoint in found:
        endpoint.close()


def client(endpoints: list[Endpoint], waits: list[float] | None = None) -> JsonRpc:
    slept = waits if waits is not None else []
    return JsonRpc([endpoint.url for endpoint in endpoints], timeout=5, probe_every=NEVER, sleep=slept.append)


def test_failover_stays_with_the_endpoint_that_works(endpoints: list[Endpoint]) -> None:
    bad, good = endpoints
    bad.script, good.script = [http(502, b"<html>")], [result("0x1")]
    rpc = client(endpoints)
    assert rpc.call("eth_chainId") == rpc.call("eth_chainId") == "0x1"
    assert (len(bad.seen), len(good.seen)) == (1, 2)
    rpc.close()


def test_the_error_names_endpoints_in_the_order_given(endpoints: list[Endpoint]) -> None:
    first, second = endpoints
    first.script, second.script = [http(502, b"")], [result("0x1"), http(503, b"")]
    rpc = client(endpoints)
    rpc.call("eth_chainId")
    with pytest.raises(RpcUnavailable, match=r"HTTP 502.*HTTP 503"):
        rpc.call("eth_chainId")
    rpc.close()


@pytest.mark.parametrize("status", [401, 403, 404, 500, 503])
def test_an_error_of_http_is_the_endpoints_own_even_with_json(endpoints: list[Endpoint], status: int) -> None:
    bad, good = endpoints
    bad.script = [http(status, b'{"jsonrpc":"2.0","id":1,"error":{"code":-32600,"message":"no"}}')]
    good.script = [result("0x1")]
    rpc = client(endpoints)
    assert rpc.call("eth_chainId") == "0x1"
    rpc.close()


def test_an_internal_error_counts_if_every_endpoint_has_it(endpoints: list[Endpoint]) -> None:
    bad, good = endpoints
    bad.script, good.script = [error(-32603, "oops")], [result("0x1")]
    rpc = client(endpoints)
    assert rpc.call("eth_chainId") == "0x1"
    good.script = bad.script
    with pytest.raises(RpcRefused, match="oops"):
        rpc.call("eth_chainId")
    rpc.close()


def test_an_endpoint_of_another_chain_is_never_asked_for_anything_else(endpoints: list[Endpoint]) -> None:
    foreign, ours = endpoints
    foreign.script, ours.script = [result("0x5")], [result("0x1")]
    rpc = JsonRpc([foreign.url, ours.url], chain_id=1, probe_every=NEVER, sleep=lambda seconds: None)
    assert rpc.call("eth_gasPrice") == rpc.call("eth_gasPrice") == "0x1"
    assert [body["method"] for body in foreign.seen] == ["eth_chainId"]
    assert [body["method"] for body in ours.seen] == ["eth_chainId", "eth_gasPrice", "eth_gasPrice"]
    ours.script = foreign.script
    rpc = JsonRpc([foreign.url, ours.url], chain_id=1, probe_every=NEVER, sleep=lambda seconds: None)
    with pytest.raises(WrongChain, match="chain 5, the deployment is on chain 1"):
        rpc.call("eth_gasPrice")
    rpc.close()


def test_one_that_lags_is_asked_last_and_one_that_is_well_again_first() -> None:
    heads: dict[str, int] = {"a": 100, "b": 110, "c": 109}
    now = [0.0]
    endpoints = Endpoints("abc", heads.__getitem__, every=10, clock=lambda: now[0])
    until(lambda: endpoints.in_order() == ["b", "c", "a"])
    endpoints.failed("b")
    until(lambda: endpoints.in_order() == ["c", "a", "b"])  # c's probe may be the last to end
    heads["a"], now[0] = 111, 11.0
    until(lambda: endpoints.in_order() == ["a", "b", "c"])
    del heads["b"]
    now[0] = 22.0
    until(lambda: endpoints.in_order() == ["a", "c", "b"])
    endpoints.close()


def test_no_probe_goes_on_after_close() -> None:
    ended: list[str] = []

    def probe(url: str) -> int:
        time.sleep(0.3)
        ended.append(url)
        return 1

    endpoints = Endpoints(["a", "b"], probe, every=10.0)
    endpoints.in_order()
    time.sleep(0.1)
    endpoints.close()
    assert sorted(ended) == ["a", "b"]


def until(condition: Callable[[], bool]) -> None:
    """Wait for what a background thread does."""
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_throttling_is_waited_out(endpoints: list[Endpoint]) -> None:
    endpoints[0].script = [http(429, retry_after="7"), http(429, retry_after="rubbish"), result("0x2")]
    waits: list[float] = []
    rpc = client(endpoints[:1], waits)
    assert rpc.call("eth_chainId") == "0x2"
    assert waits == [7.0, 1.0]
    rpc.close()


@pytest.mark.parametrize("content", [b"", b"not json", b"[]", b"7", b'{"jsonrpc":"2.0","id":99999}'])
def test_rubbish_is_an_error_that_may_pass(endpoints: list[Endpoint], content: bytes) -> None:
    endpoints[0].script = [http(200, content)]
    rpc = client(endpoints[:1])
    with pytest.raises((RpcUnavailable, BadAnswer)) as caught:
        rpc.call("eth_chainId")
    assert caught.value.retryable
    rpc.close()


def test_a_batch_is_put_in_order(endpoints: list[Endpoint]) -> None:
    def shuffled(body: Any) -> tuple[int, dict[str, str], bytes]:
        items = [{"id": item["id"], "result": item["params"][0]} for item in reversed(body)]
        return 200, {}, json.dumps(items).encode()

    endpoints[0].script = [shuffled]
    rpc = client(endpoints[:1])
    assert rpc.batch([("echo", [number]) for number in range(230)]) == list(range(230))
    assert [len(body) for body in endpoints[0].seen] == [100, 100, 30]
    rpc.close()


@pytest.mark.parametrize(
    ("method", "code", "message", "kind"),
    [
        ("eth_sendRawTransaction", -32000, "nonce too low: next nonce 5, tx nonce 4", NonceTooLow),
        ("eth_sendRawTransaction", -32000, "already known", AlreadyKnown),
        ("eth_sendRawTransaction", -32000, "replacement transaction underpriced", Underpriced),
        ("eth_sendRawTransaction", -32010, "AlreadyKnown", AlreadyKnown),
        ("eth_sendRawTransaction", -32010, "OldNonce, Current nonce: 5, nonce of rejected tx: 4", NonceTooLow),
        ("eth_sendRawTransaction", -32010, "FeeTooLowToCompete", Underpriced),
        ("eth_sendRawTransaction", -32010, "InsufficientFunds, Account balance: 1", InsufficientFunds),
        ("eth_sendRawTransaction", -32003, "insufficient funds for gas * price + value", InsufficientFunds),
        ("eth_getLogs", -32005, "query returned more than 10000 results", TooManyResults),
        ("eth_getLogs", -32602, "block range is too large", TooManyResults),
        ("eth_getLogs", -32000, "unknown block", RpcRefused),
        ("eth_call", 3, "execution reverted", CallReverted),
        ("eth_foo", -32601, "method not found", RpcRefused),
    ],
)
def test_refusals_have_their_type(
    endpoints: list[Endpoint], method: str, code: int, message: str, kind: type[Exception]
) -> None:
    endpoints[0].script = [error(code, message)]
    rpc = client(endpoints[:1])
    with pytest.raises(kind) as caught:
        rpc.call(method)
    assert type(caught.value) is kind
    rpc.close()


@pytest.mark.parametrize("value", [None, 7, "0x", "zz", "0x" + "f" * 64, {}, []])
def test_implausible_numbers_are_bad_answers(endpoints: list[Endpoint], value: Any) -> None:
    endpoints[0].script = [result(value)]
    chain = RpcChain(client(endpoints[:1]))
    with pytest.raises(BadAnswer):
        chain.nonce("0x" + "00" * 20)
    chain.close()


@pytest.mark.parametrize("value", [{"number": "0x1"}, [], "0x", {"number": None, "hash": 5}])
def test_broken_headers_and_logs_are_bad_answers(endpoints: list[Endpoint], value: Any) -> None:
    endpoints[0].script = [result(value)]
    chain = RpcChain(client(endpoints[:1]))
    with pytest.raises(BadAnswer):
        chain.header(1)
    endpoints[0].script = [result([value])]
    with pytest.raises(BadAnswer):
        chain.logs(["0x" + "00" * 20], 0, 1)
    chain.close()


def test_logs_beyond_what_we_hold_are_too_many(endpoints: list[Endpoint], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsonrpc, "MAX_ANSWER_BYTES", 1000)
    endpoints[0].script = [result("0x" + "00" * 1000)]
    rpc = client(endpoints[:1])
    with pytest.raises(TooManyResults):
        rpc.call("eth_getLogs", {})
    with pytest.raises(RpcUnavailable):
        rpc.call("eth_getCode", "0x")
    rpc.close()


def test_reverts_are_decoded_or_shown() -> None:
    text = "0x08c379a0" + abi.encode(["string"], ["no"]).hex()
    assert decode_revert(text).values == {"reason": "no"}
    assert decode_revert({"data": text}).name == "Error"
    assert decode_revert("0x4e487b71" + abi.encode(["uint256"], [17]).hex()).values == {"code": 17}
    known = decode_revert("0x9996b315" + abi.encode(["address"], ["0x" + "11" * 20]).hex())
    assert (known.name, known.values) == ("AddressEmptyCode", {"target": "0x" + "11" * 20})
    for odd in (None, "0x", "zz", "0x9996b315", "0x08c379a0ff", "0xdeadbeef", {"data": None}):
        assert decode_revert(odd, "why").name == "Unknown"
