"""RPC endpoints on real sockets that misbehave: scripted, in front of a real node, or silent."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx

Answer = Callable[[Any], tuple[int, dict[str, str], bytes]]
"""From a request's body to status, headers and content."""


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


def behind(url: str, blocks: int) -> Answer:
    """A node that has not heard of the newest ``blocks`` blocks of the chain at ``url`` nor of what is pending."""

    def ask(method: str, *params: Any) -> Any:
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        return httpx.post(url, json=body).json()

    def one(item: dict[str, Any], head: int) -> dict[str, Any]:
        method, params = item["method"], [hex(head) if param == "latest" else param for param in item["params"]]
        if method == "eth_blockNumber":
            return {"jsonrpc": "2.0", "id": item["id"], "result": hex(head)}
        found = ask(method, *params)
        if method == "eth_getTransactionReceipt" and found["result"] and int(found["result"]["blockNumber"], 16) > head:
            found["result"] = None
        return found | {"id": item["id"]}

    def answer(body: Any) -> tuple[int, dict[str, str], bytes]:
        head = max(0, int(ask("eth_blockNumber")["result"], 16) - blocks)
        items = [one(item, head) for item in (body if isinstance(body, list) else [body])]
        return 200, {}, json.dumps(items if isinstance(body, list) else items[0]).encode()

    return answer


@contextmanager
def endpoint(answer: Answer) -> Iterator[Endpoint]:
    """An endpoint that always answers so."""
    found = Endpoint()
    found.script = [answer]
    try:
        yield found
    finally:
        found.close()


@contextmanager
def hanging() -> Iterator[str]:
    """A URL that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@contextmanager
def dead() -> Iterator[str]:
    """A URL where nobody listens; the port stays taken meanwhile."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"
