"""What somebody who has proved nothing can cost the gateway: served for real, with no database behind it."""

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from types import SimpleNamespace
from typing import Any, cast

import pytest
import uvicorn
from fastapi import FastAPI
from prometheus_client import generate_latest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from everlease.db.engine import DatabaseUnavailable
from everlease.supervision import Roster
from everlease.wire.node import MAX_HELLO_BYTES, Challenge
from marketplace.gateway import endpoint, greeting
from marketplace.gateway.endpoint import Gateway
from marketplace.metrics import Metrics
from marketplace.parts import Parts
from marketplace.serving import server_config
from tests.support.marketplace import free_port
from tests.unit.marketplace.test_small_parts import settings

GATEWAYS: list[Gateway] = []


class NoDatabase:
    libpq_url = ""

    def transaction(self) -> Any:
        raise DatabaseUnavailable("none here")


@contextmanager
def gateway(**changes: Any) -> Iterator[tuple[str, Metrics]]:
    """A gateway's WebSocket URL and its metrics."""
    metrics, app = Metrics(Roster()), FastAPI()
    deployment = SimpleNamespace(chain_id=31337, escrow="0x" + "0e" * 20, escrow_domain=None)
    parts = SimpleNamespace(
        settings=settings(port=free_port(), **changes),
        deployment=deployment,
        db=NoDatabase(),
        metrics=metrics,
        followers=SimpleNamespace(wake=None),
        clock=time.time,
        tasks=SimpleNamespace(stop=lambda name: None),
    )
    app.state.gateway = Gateway(cast(Parts, parts))
    GATEWAYS.append(app.state.gateway)
    app.include_router(endpoint.router)
    server = uvicorn.Server(server_config(app, parts.settings, log_config=None, log_level="critical"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield f"ws://127.0.0.1:{parts.settings.port}/v1/node", metrics
    finally:
        server.should_exit = server.force_exit = True
        thread.join()


def dial(url: str, source: str = "127.0.0.1") -> ClientConnection:
    return connect(url, proxy=None, ping_interval=None, close_timeout=0.5, source_address=(source, 0))


def greeted(socket: ClientConnection) -> Challenge:
    return Challenge.model_validate_json(socket.recv(10))


def dropped(socket: ClientConnection) -> bool:
    """Whether the gateway ended this connection."""
    try:
        while socket.recv(5):
            pass
    except ConnectionClosed:
        return True
    except TimeoutError:
        pass
    return False


def test_no_compression_is_agreed_upon() -> None:
    with gateway() as (url, _), dial(url) as socket:
        greeted(socket)
        assert socket.protocol.extensions == []


def test_a_hello_that_is_too_large_is_refused_before_it_is_read() -> None:
    with gateway() as (url, _), dial(url) as socket:
        greeted(socket)
        with suppress(ConnectionClosed):
            socket.send("[" + "0," * MAX_HELLO_BYTES + "0]")
        with pytest.raises(ConnectionClosed) as ended:
            socket.recv(5)
        assert ended.value.rcvd is None or ended.value.rcvd.code == 1009


def test_fragments_and_pings_are_counted_before_a_hello() -> None:
    with gateway() as (url, _):
        with dial(url) as pinging:
            greeted(pinging)
            with suppress(ConnectionClosed):
                for _ in range(200):
                    pinging.ping()
            assert dropped(pinging)
        with dial(url) as tearing:
            greeted(tearing)
            with suppress(ConnectionClosed):
                tearing.send("x" for _ in range(200))
            assert dropped(tearing)
        with dial(url) as ordinary:
            greeted(ordinary)
            ordinary.ping()
            ordinary.send(iter(["{", "}"]))
            with pytest.raises(ConnectionClosed) as ended:
                ordinary.recv(5)
            assert ended.value.rcvd is not None
            assert "malformed" in ended.value.rcvd.reason


def test_silent_sockets_of_a_few_addresses_keep_nobody_out() -> None:
    with gateway(knocks_burst=1000) as (url, metrics), ExitStack() as stack:
        flood = [stack.enter_context(dial(url, f"127.0.0.{2 + number % 4}")) for number in range(300)]
        newcomer = stack.enter_context(dial(url, "127.0.0.9"))
        greeted(newcomer)
        assert dropped(flood[0]), "the oldest of the crowd goes"
        assert metrics.greeting._value.get() <= 128
        newcomer.send("{}")
        with pytest.raises(ConnectionClosed) as ended:
            newcomer.recv(5)
        assert ended.value.rcvd is not None
        assert "malformed" in ended.value.rcvd.reason


def test_who_knocks_too_often_is_turned_away_before_anything_is_said() -> None:
    with gateway(knocks_burst=3, knocks_per_second=0.01) as (url, metrics):
        for _ in range(3):
            dial(url).close()
        with pytest.raises(InvalidStatus) as refused:
            dial(url)
        assert refused.value.response.status_code == 403
        with dial(url, "127.0.0.2") as other:
            greeted(other)
        assert 'outcome="limited"} 1.0' in generate_latest(metrics.registry).decode()


def test_what_is_not_signed_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fields that a signature covers are looked at, and the rest of the message is not."""
    from marketplace.gateway import admission

    read: list[str] = []
    monkeypatch.setattr(admission, "_read_whole", read.append)
    with gateway() as (url, _), dial(url) as socket:
        challenge = greeted(socket)
        hello = {
            "type": "hello",
            "node": "0x" + "01" * 20,
            "provider": "0x" + "02" * 20,
            "nonce": challenge.nonce,
            "sealing_key": "A" * 43 + "=",
            "facts": {str(number): [[]] for number in range(5000)},
            "signature": "0x" + "11" * 65,
        }
        monkeypatch.setattr(admission.typed_data, "node_hello_digest", lambda *_: b"\0" * 32)
        socket.send(json.dumps(hello))
        with pytest.raises(ConnectionClosed) as ended:
            socket.recv(5)
        assert ended.value.rcvd is not None
        assert "not signed" in ended.value.rcvd.reason
        assert read == []


def test_a_gateway_that_ends_waits_for_no_stranger() -> None:
    with ExitStack() as stack, gateway() as (url, _):
        sockets = [stack.enter_context(dial(url)) for _ in range(5)]
        for socket in sockets:
            greeted(socket)
        closing = time.monotonic()
        GATEWAYS[-1].close()
        assert all(dropped(socket) for socket in sockets)
        assert time.monotonic() - closing < 5


def test_a_hello_that_does_not_come_ends_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(greeting, "HELLO_TIMEOUT_S", 0.2)
    with gateway() as (url, _), dial(url) as socket:
        greeted(socket)
        with pytest.raises(ConnectionClosed) as ended:
            socket.recv(5)
        assert ended.value.rcvd is not None
        assert "no hello" in ended.value.rcvd.reason


def test_a_database_that_was_away_at_the_start_is_asked_again_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Until it answers, every known node counts as a stranger."""
    answers = iter([DatabaseUnavailable("not yet"), frozenset({"192.0.2.1"})])

    def networks(_: object) -> frozenset[str]:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(greeting.Greeter, "_known_networks", networks)

    async def scene() -> None:
        greeter = greeting.Greeter(cast(Parts, SimpleNamespace(settings=settings())))
        looking = asyncio.create_task(greeter.keep_known(lambda: None))
        async with asyncio.timeout(5):
            while not greeter.door._known:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        looking.cancel()

    asyncio.run(scene())
