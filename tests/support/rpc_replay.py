"""A JSON-RPC server of a made-up chain, in a process of its own: any number of blocks of lease events, with linked
headers and true blooms, and nothing kept in memory, so that a reader of a million events can be measured.

Answers are texts with the block's and the job's names put in: making a log costs less than reading it.
"""

import json
import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection
from typing import Any

from everlease.chain.bloom import EMPTY, bloom_of
from tests.support.events import as_log
from tests.support.lease_history import ESCROW, EVENTS_PER_BLOCK, EVENTS_PER_JOB, STAND_INS, job_events, renamed

_JOBS_PER_BLOCK = EVENTS_PER_BLOCK // EVENTS_PER_JOB
_TAIL = 100
"""Empty blocks behind the last event, so that all events are final."""
_FINALITY = 64
_LOGS = [as_log(ESCROW, event) for event in job_events(*STAND_INS)]


def _template(topics: tuple[str, ...], data: bytes) -> str:
    log = {"address": ESCROW, "topics": topics, "data": "0x" + data.hex()}
    block = {
        "blockHash": "<hash>",
        "blockNumber": "<number>",
        "blockTimestamp": "<number>",
        "transactionHash": "<hash>",
    }
    text = json.dumps(log | block | {"transactionIndex": "0x0", "removed": False}, separators=(",", ":"))
    return text.removesuffix("}")


_JOB = "\n".join(_template(topics, data) for _, topics, data in _LOGS)
_JOB_TOPICS = {topic for _, topics, _ in _LOGS for topic in topics}


class _Chain:
    """Blocks 1..``last`` hold 100 events each; everything about a block follows from its number."""

    def __init__(self, events: int) -> None:
        self.last = events // EVENTS_PER_BLOCK
        self.head = self.last + _TAIL

    def answer(self, method: str, params: list[Any]) -> str:
        """The result of a call, as JSON."""
        if method == "eth_chainId":
            return '"0x7a69"'
        if method == "eth_getBlockByNumber":
            named = {"latest": self.head, "finalized": self.head - _FINALITY}
            return self._header(named[params[0]] if params[0] in named else int(params[0], 16))
        if method == "eth_getLogs" and "fromBlock" in params[0]:
            span = range(int(params[0]["fromBlock"], 16), int(params[0]["toBlock"], 16) + 1)
            return "[" + ",".join(text for number in span for text in self._logs(number)) + "]"
        raise KeyError(method)

    def _header(self, number: int) -> str:
        if number > self.head:
            return "null"
        bloom = EMPTY
        if 1 <= number <= self.last:
            names = {renamed(topic, job) for job in _jobs_of(number) for topic in _JOB_TOPICS}
            bloom = bloom_of([bytes.fromhex(ESCROW[2:]), *(bytes.fromhex(topic[2:]) for topic in names)])
        item = {
            "number": hex(number), "hash": _hash(number), "parentHash": _hash(number - 1),
            "timestamp": hex(1_700_000_000 + number), "logsBloom": "0x" + bloom.hex(),
        }  # fmt: skip
        return json.dumps(item)

    def _logs(self, number: int) -> Iterator[str]:
        if not 1 <= number <= self.last:
            return
        block = _JOB.replace("<hash>", _hash(number)).replace("<number>", hex(number))
        index = 0
        for job in _jobs_of(number):
            for log in renamed(block, job).split("\n"):
                yield f'{log},"logIndex":"{index:#x}"}}'
                index += 1


def _jobs_of(number: int) -> range:
    return range(number * _JOBS_PER_BLOCK, (number + 1) * _JOBS_PER_BLOCK)


def _hash(number: int) -> str:
    return "0x" + sha256(number.to_bytes(8, "big", signed=True)).hexdigest()


@contextmanager
def running_replay(events: int) -> Iterator[str]:
    """The URL of a chain with this many events."""
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_serve, args=(theirs, events), daemon=True)
    process.start()
    try:
        yield ours.recv()
    finally:
        process.terminate()
        process.join()


def _serve(pipe: Connection, events: int) -> None:
    chain = _Chain(events)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            items = [
                f'{{"jsonrpc":"2.0","id":{call["id"]},"result":{chain.answer(call["method"], call["params"])}}}'
                for call in (body if isinstance(body, list) else [body])
            ]
            content = ("[" + ",".join(items) + "]" if isinstance(body, list) else items[0]).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    pipe.send(f"http://127.0.0.1:{server.server_port}")
    server.serve_forever()
