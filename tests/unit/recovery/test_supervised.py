"""No thread of the monitor ends unseen: it is started again, and readiness tells of it."""

import threading
import time
from types import SimpleNamespace
from typing import Any, cast

import pytest

from everlease.db import Database
from everlease.supervision import Alive, Roster
from recovery import health, monitor
from recovery.runtime import Runtime
from tests.support.http import served_app

RUNTIME = cast(
    Runtime,
    SimpleNamespace(
        settings=SimpleNamespace(receipt_every=2.0, health_port=0),
        desk=SimpleNamespace(database=SimpleNamespace(libpq_url=""), clock=time.time),
    ),
)


def test_a_thread_that_dies_of_a_bug_is_started_again_beside_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    stop, runs, others = threading.Event(), [], []

    def relay(_: Any, stop: threading.Event, __: threading.Event, ___: Alive) -> None:
        runs.append(time.monotonic())
        if len(runs) < 3:
            raise KeyError("a bug")
        stop.wait()

    def wait(*arguments: Any) -> None:
        others.append(1)
        stop.wait()

    monkeypatch.setattr(monitor, "run_relay", relay)
    monkeypatch.setattr(monitor, "make_app", lambda _: None)
    for name in ("run_receipts", "_listen"):
        monkeypatch.setattr(monitor, name, wait)
    monkeypatch.setattr(monitor.Monitor, "run", wait)
    thread = threading.Thread(target=monitor.run, args=(RUNTIME, stop))
    thread.start()
    until = time.monotonic() + 10
    while len(runs) < 3 and time.monotonic() < until:
        time.sleep(0.01)
    assert thread.is_alive()
    stop.set()
    thread.join(10)
    assert len(runs) == 3
    assert runs[2] - runs[1] > runs[1] - runs[0] > 0.15, "after a wait that grows"
    assert len(others) == 3


def test_readiness_has_a_line_for_each_thread(database: Database) -> None:
    now = [0.0]
    roster = Roster(lambda: now[0])
    relay = roster.add("relay", 10, vital=True)
    relay.begin()
    with served_app(health.create_app(database, roster)) as client:
        ready = client.get("/readyz")
        assert (ready.status_code, ready.json()["checks"]) == (200, {"database": "ok", "task relay": "ok"})
        now[0] = 60
        stalled = client.get("/readyz")
        assert (stalled.status_code, stalled.json()["checks"]["task relay"]) == (503, "stalled")
        assert 'everlease_task_up{task="relay"} 0.0' in client.get("/metrics").text
        assert client.get("/healthz").status_code == 200
