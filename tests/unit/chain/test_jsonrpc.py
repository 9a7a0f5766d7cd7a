"""The JSON-RPC client against a real HTTP server that misbehaves in every way we know."""

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from eth_abi import abi

from everlease.chain import jsonrpc
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
)
from everlease.chain.jsonrpc import JsonRpc
from everlease.chain.reverts import decode_revert
from everlease.chain.rpc import RpcChain

Answer = Callable[[Any], tuple[int, dict[str, str], bytes]]


class Endpoint:
    """An HTTP server whose next answers are scripted; the last one repeats."""

    def __init__(self) -> None:
        self.script: list[Answer] = []
        self.seen: list[Any] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                outer.seen.append(body)
                answer = outer.script.pop(0) if len(outer.script) > 1 else outer.script[0]
                status, headers, content = answer(body)
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *args: Any) -> None:
                return

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def endpoints() -> Iterator[list[Endpoint]]:
    found = [Endpoint(), Endpoint()]
    yield found
    for endpoint in found:
        endpoint.close()


def result(value: Any) -> Answer:
    def answer(body: Any) -> tuple[int, dict[str, str], bytes]:
        items = [
            {"jsonrpc": "2.0", "id": item["id"], "result": value}
            for item in (body if isinstance(body, list) else [body])
        ]
        return 200, {}, json.dumps(items if isinstance(body, list) else items[0]).encode()

    return answer


def error(code: int, message: str, data: Any = None) -> Answer:
    def answer(body: Any) -> tuple[int, dict[str, str], bytes]:
        content = {"jsonrpc": "2.0", "id": body["id"], "error": {"code": code, "message": message, "data": data}}
        return 200, {}, json.dumps(content).encode()

    return answer


def http(status: int, content: bytes = b"", **headers: str) -> Answer:
    return lambda body: (status, {key.replace("_", "-"): value for key, value in headers.items()}, content)


def client(endpoints: list[Endpoint], waits: list[float] | None = None) -> JsonRpc:
    slept = waits if waits is not None else []
    return JsonRpc([endpoint.url for endpoint in endpoints], timeout=5, sleep=slept.append)


def test_failover_stays_with_the_endpoint_that_works(endpoints: list[Endpoint]) -> None:
    bad, good = endpoints
    bad.script, good.script = [http(502, b"<html>")], [result("0x1")]
    rpc = client(endpoints)
    assert rpc.call("eth_chainId") == rpc.call("eth_chainId") == "0x1"
    assert (len(bad.seen), len(good.seen)) == (1, 2)
    rpc.close()


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
