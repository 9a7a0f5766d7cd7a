"""The indexer as a process: killed again and again while the chain goes on; what it serves; how it ends."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from everlease.db import Database, mirror
from indexer.app import Metrics, create_app
from indexer.follower import Follower
from indexer.source import mirrored
from tests.support.anvil import running_anvil
from tests.support.deployed import Market
from tests.support.http import served_app
from tests.support.mirrors import dump, held, told
from tests.support.waiting import wait_for

pytestmark = pytest.mark.anvil


def start(market: Market, database: Database, folder: Path, *arguments: str) -> "subprocess.Popen[bytes]":
    deployments = folder / "deployments.json"
    market.deployment.save(deployments)
    environment = os.environ | {
        "EVERLEASE_INDEXER_DEPLOYMENTS": str(deployments),
        "EVERLEASE_INDEXER_RPC_URLS": f'["{market.anvil.url}"]',
        "EVERLEASE_INDEXER_WS_URL": market.anvil.ws_url,
        "EVERLEASE_INDEXER_DATABASE_URL": database.url,
        "EVERLEASE_INDEXER_PORT": "0",
        "EVERLEASE_INDEXER_POLL_S": "0.1",
    }
    return subprocess.Popen([sys.executable, "-m", "indexer", *arguments], env=environment)


def test_killed_again_and_again(market: Market, database: Database, fresh: Database, tmp_path: Path) -> None:
    chance = random.Random(7)
    for round_number in range(3):
        process = start(market, database, tmp_path)
        for _ in range(8):
            market.send(market.tenant, market.asset.approve(market.deployment.staking, 2**128))
            market.send(market.tenant, market.staking.stake(1 + round_number))
        time.sleep(1.2 + chance.random() * 0.5)
        process.send_signal(signal.SIGKILL)
        process.wait()
        if round_number % 2:
            market.anvil.reorg(2)
    process = start(market, database, tmp_path)
    Follower(market.chain, market.deployment, fresh).catch_up()
    expected = dump(fresh)
    assert len(expected["idx_event"]) > 20
    wait_for(lambda: dump(database) == expected)
    process.terminate()
    assert process.wait(20) in (0, -signal.SIGTERM)
    assert told(database) == held(database)


def test_it_ends_where_no_wait_helps(market: Market, database: Database, tmp_path: Path) -> None:
    with database.transaction() as tx:
        header = market.chain.header(0)
        assert header is not None
        mirror.start(tx, 1, header.hash, "0x" + "00" * 20, "0x" + "00" * 20, mirrored(header))
    assert start(market, database, tmp_path).wait(30) == 1
    assert start(market, database, tmp_path, "rebuild").wait(30) == 0
    with database.transaction() as tx:
        assert mirror.cursor(tx) is None


def test_a_chain_without_the_contracts_is_refused_at_start(
    market: Market, database: Database, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with running_anvil() as other:
        assert start(replace(market, anvil=other), database, tmp_path).wait(30) == 1
    said = "".join(capfd.readouterr())
    assert f"chain 31337 has no contract at {market.deployment.escrow}" in said


@pytest.fixture
def served(market: Market, database: Database) -> Iterator[httpx.Client]:
    market.stake()
    job = market.fund(market.order())
    opening, _ = market.open_call(job)
    market.send(market.watcher, opening)
    Follower(market.chain, market.deployment, database).catch_up()
    with served_app(create_app(database, Metrics())) as client:
        yield client


def test_what_the_explorer_shows(market: Market, database: Database, served: httpx.Client) -> None:
    (lease,) = served.get("/v1/explorer/leases").json()["items"]
    assert lease["state"] == "ACTIVE"
    assert served.get(f"/v1/explorer/leases/{lease['lease_id']}").json() == lease
    job = served.get(f"/v1/explorer/jobs/{lease['job_id']}").json()
    assert job["leases"] == [lease]
    who = served.get(f"/v1/explorer/addresses/{market.provider.address.upper().replace('0X', '0x')}").json()
    assert who["provider"]["leases"] == 1
    assert [node["node"] for node in who["nodes"]] == [market.node.address]
    assert served.get("/v1/explorer/stats").json()["leases"]["ACTIVE"] == 1
    status = served.get("/v1/explorer/status").json()
    assert (status["lag"], status["halted"]) == (0, "")
    assert served.get("/v1/explorer/leases", params={"state": "CLOSED"}).json() == {"items": [], "next": None}
    assert served.get("/readyz").status_code == served.get("/healthz").status_code == 200
    assert "everlease_indexer_block" in served.get("/metrics").text
    with database.transaction() as tx:
        mirror.halt(tx, "because")
    assert served.get("/readyz").status_code == 503
    assert "because" in served.get("/readyz").json()["detail"]


def test_pages_end_and_never_overlap(served: httpx.Client) -> None:
    everything = served.get("/v1/explorer/events", params={"limit": 200}).json()["items"]
    found: list[Any] = []
    after: dict[str, Any] = {}
    while True:
        page = served.get("/v1/explorer/events", params={"limit": 2} | after).json()
        found += page["items"]
        if page["next"] is None:
            break
        after = {"after": page["next"]}
    assert found == everything
    names = [event["name"] for event in everything]
    assert {"LeaseOpened", "JobFunded", "NodeAuthorised"} <= set(names)
    only = served.get("/v1/explorer/events", params={"name": "LeaseOpened"}).json()["items"]
    assert [event["name"] for event in only] == ["LeaseOpened"]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v1/explorer/leases?after=rubbish", 400),
        ("/v1/explorer/leases?after=WzEsIDJd", 400),
        ("/v1/explorer/leases?limit=0", 422),
        ("/v1/explorer/leases?state=GONE", 422),
        ("/v1/explorer/jobs/0x12", 422),
        ("/v1/explorer/jobs/0x" + "00" * 32, 404),
        ("/v1/explorer/addresses/nobody", 422),
        ("/v1/explorer/nothing", 404),
    ],
)
def test_bad_requests_get_a_problem(served: httpx.Client, path: str, status: int) -> None:
    answer = served.get(path)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["detail"]
