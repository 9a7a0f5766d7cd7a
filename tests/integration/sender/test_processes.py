"""One sender per key over real processes: while one holds it others wait, and kill -9 of the holder hands it on."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from everlease.db import Database, journal
from everlease.db.models.outbox import TxRow
from tests.support.deployed import Market
from tests.support.rpc_endpoints import Answer, endpoint

pytestmark = pytest.mark.anvil
ROOT = Path(__file__).parents[3]


def stops_at_sending(url: str, asked: threading.Event, go_on: threading.Event) -> Answer:
    """An endpoint before ``url`` that answers everything but a transaction that is sent."""

    def answer(body: Any) -> tuple[int, dict[str, str], bytes]:
        if isinstance(body, dict) and body["method"] == "eth_sendRawTransaction":
            asked.set()
            go_on.wait(60)
            return 503, {}, b""
        return 200, {}, httpx.post(url, json=body).content

    return answer


@contextmanager
def sender(database: Database, url: str, secret: str) -> Iterator["subprocess.Popen[str]"]:
    command = [sys.executable, "-m", "tests.support.sender_process", database.url, url, secret]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def row(database: Database) -> TxRow:
    with database.transaction() as tx:
        found = journal.find(tx, "mint")
        assert found is not None
        return found


def test_another_process_takes_over_after_kill_9(market: Market, database: Database) -> None:
    mint, key = market.asset.mint(market.watcher.address, 1), market.watcher
    with database.transaction() as tx:
        journal.enqueue(tx, action_key="mint", sender=key.address, to=mint.to, data=mint.data, call="mint")
    asked, go_on = threading.Event(), threading.Event()
    with (
        endpoint(stops_at_sending(market.anvil.url, asked, go_on)) as slow,
        sender(database, slow.url, key.secret.hex()) as holder,
    ):
        assert asked.wait(60)
        signed = row(database)
        assert (signed.state, signed.nonce) == ("journaled", 0), "it was journaled before it was sent"
        with sender(database, market.anvil.url, key.secret.hex()) as other:
            assert other.stdout is not None
            assert [other.stdout.readline() for _ in range(5)] == ["busy\n"] * 5
            assert holder.poll() is None
            holder.kill()
            holder.wait()
            said = other.stdout.read().split()
            assert other.wait() == 0
        go_on.set()
    assert said[-1] == "pumped"
    mined = row(database)
    assert (mined.state, mined.raw) == ("mined", signed.raw)
    assert market.views.asset_balance(key.address) == 1
    assert market.chain.nonce(key.address) == 1
