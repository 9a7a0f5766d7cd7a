"""Replicas side by side, a database that goes away, and the process itself: start, SIGTERM, bad settings."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from websockets.exceptions import ConnectionClosed

from everlease.db import Database, gateways, nodes, queries
from everlease.db.engine import DatabaseUnavailable
from everlease.db.migrate import upgrade
from everlease.domain.liveness import LivenessPolicy
from marketplace.services.keys import KeyService
from recovery import watch
from tests.support.anvil import running_anvil
from tests.support.deployed import Market
from tests.support.gateway import award, issue, line
from tests.support.marketplace import SPEC, FakeNode, Service, free_port, job_body, make_award, make_settings, served
from tests.support.postgres import PostgresServer

pytestmark = pytest.mark.anvil


def test_replicas_share_everything_through_the_database(
    service: Service, market: Market, node: FakeNode, postgres_url: str, tmp_path: Path, job_id: str
) -> None:
    folder = tmp_path / "second"
    folder.mkdir()
    settings = make_settings(
        market,
        postgres_url,
        folder,
        store=service.settings.store_url,
        master_key_file=service.settings.master_key_file,
    )
    with served(settings) as second:
        node.connect()
        held = award(service, node, job_id)
        issue(second, held, "prepare", {"spec": SPEC, "checkpoint": None})
        assert node.expect("command").command.job_id == job_id
        moved = FakeNode(second, market, node.key, node.provider)
        welcome = moved.connect(({"job_id": job_id, "fence": held.fence, "state": "running"},))
        assert welcome.confirmed == {job_id: held.fence}
        assert moved.beat(line(held)).refused == []
        node.send("heartbeat", jobs=[])
        with pytest.raises(ConnectionClosed) as ended:
            node.expect("heartbeat_ack")
        assert ended.value.rcvd is not None
        assert ended.value.rcvd.code == 4000
        client = second.client(market.tenant)
        assert client.get(f"/v1/jobs/{job_id}").json()["node"] == node.key.address
        assert client.get("/readyz").status_code == 200
        client.close()
        moved.close()


def test_without_a_database_nothing_is_acknowledged_and_the_connection_lives(
    service: Service, node: FakeNode, postgres_server: PostgresServer, postgres_url: str
) -> None:
    node.connect()
    node.beat()
    name = postgres_url.split("/")[3].split("?")[0]
    postgres_server.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
    postgres_server.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
    node.send("heartbeat", jobs=[])
    with pytest.raises(TimeoutError):
        node.recv(1.5)
    with pytest.raises(DatabaseUnavailable):
        service.db.ping()
    with service.client() as client:
        away = client.get("/v1/nodes")
        assert (away.status_code, away.json()["type"]) == (503, "urn:everlease:problem:database-unavailable")
        ready = client.get("/readyz")
        assert (ready.status_code, ready.json()["checks"]["database"]) == (503, "unavailable"), "no hosts, no users"
        assert client.get("/healthz").status_code == 200
    postgres_server.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
    assert node.beat().refused == []


def environment(market: Market, database_url: str, folder: Path, port: int) -> dict[str, str]:
    market.deployment.save(folder / "deployment.json")
    values = {
        "DEPLOYMENTS": str(folder / "deployment.json"),
        "RPC_URLS": f'["{market.anvil.url}"]',
        "DATABASE_URL": database_url,
        "PORT": str(port),
        "PUBLIC_URL": f"http://127.0.0.1:{port}",
        "WATCHER": market.watcher.address,
        "STORE": str(folder / "store"),
        "STORE_TOKEN_SECRET": "s" * 32,
        "MASTER_KEY_FILE": str(folder / "master.key"),
        "LOG_JSON": "true",
    }
    return {**os.environ, **{f"EVERLEASE_MARKETPLACE_{name}": value for name, value in values.items()}}


def test_a_chain_without_the_contracts_is_refused_at_start(market: Market, postgres_url: str, tmp_path: Path) -> None:
    with running_anvil() as other:
        variables = environment(replace(market, anvil=other), postgres_url, tmp_path, free_port())
        run = subprocess.run(
            [sys.executable, "-m", "marketplace"],
            env=variables,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
    assert run.returncode == 2
    assert f"marketplace: chain 31337 has no contract at {market.deployment.escrow}" in run.stderr


def test_sigterm_sends_nodes_and_streams_away(market: Market, postgres_url: str, tmp_path: Path) -> None:
    market.stake()
    port = free_port()
    variables = environment(market, postgres_url, tmp_path, port)
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen([sys.executable, "-m", "marketplace"], env=variables, stderr=log, stdout=log)
    try:
        settings = make_settings(market, postgres_url, tmp_path, port=port)
        service = Service(settings.public_url, settings, None)  # type: ignore[arg-type]
        _await_up(settings.public_url, process, tmp_path / "log")
        client = service.client(market.tenant)
        job_id = client.post("/v1/jobs", json=job_body(market)).json()["id"]
        node = FakeNode(service, market, market.node, market.provider)
        node.connect()
        node.beat()
        headers = {"Accept": "text/event-stream"}
        with client.stream("GET", f"/v1/jobs/{job_id}/events", headers=headers) as stream:
            lines = stream.iter_lines()
            while "job.created" not in next(lines):
                pass
            process.send_signal(signal.SIGTERM)
            assert list(lines) is not None
        with pytest.raises(ConnectionClosed) as ended:
            node.expect("nothing, until it ends")
        assert ended.value.rcvd is not None
        assert ended.value.rcvd.code == 1012
        client.close()
        assert process.wait(15) == 0
    finally:
        process.kill()
        process.wait()
    written = (tmp_path / "log").read_text()
    assert "marketplace down" in written
    assert "s" * 32 not in written


def test_a_restart_of_the_marketplace_costs_no_node_its_award(
    market: Market, postgres_url: str, tmp_path: Path
) -> None:
    """SIGTERM is no sign of a dead host; the process that comes back confirms the fence of the container."""
    market.stake()
    port = free_port()
    variables = environment(market, postgres_url, tmp_path, port)
    settings = make_settings(market, postgres_url, tmp_path, port=port)
    service = Service(settings.public_url, settings, None)  # type: ignore[arg-type]
    database, policy = Database(postgres_url), LivenessPolicy()
    with process(variables, tmp_path / "first", settings.public_url) as first:
        client = service.client(market.tenant)
        job_id = client.post("/v1/jobs", json=job_body(market)).json()["id"]
        client.close()
        node = FakeNode(service, market, market.node, market.provider)
        node.connect()
        held = make_award(database, job_id, node.key, node.provider)
        assert node.beat(line(held)).refused == []
        with database.transaction() as tx:
            assert not watch.deaf(tx, time.time(), policy)
        first.send_signal(signal.SIGTERM)
        assert first.wait(15) == 0
    with database.transaction() as tx:
        row = nodes.get(tx, node.key.address)
        assert row is not None
        assert (row.disconnected_at, row.connected) == (None, False), "sent away; nobody's socket closed"
        assert queries.market_facts(tx).nodes_alive == 0
        assert watch.deaf(tx, time.time() + 600, policy), "with no gateway up nobody is judged, however long"
    with process(variables, tmp_path / "second", settings.public_url):
        again = FakeNode(service, market, node.key, node.provider)
        welcome = again.connect(({"job_id": job_id, "fence": held.fence, "state": "frozen"},))
        assert welcome.confirmed == {job_id: held.fence}
        assert welcome.resume_after_s == 0
        assert again.beat(line(held)).refused == []
        with database.transaction() as tx:
            assert watch.look(tx, time.time(), time.time() - 60, policy) == []
        # A host that dies is still seen at once.
        again.close()
        until = time.monotonic() + 10
        while time.monotonic() < until:
            with database.transaction() as tx:
                row = nodes.get(tx, node.key.address)
                if row is not None and row.disconnected_at is not None:
                    break
            time.sleep(0.05)
        assert row is not None
        assert row.disconnected_at is not None
    database.close()


def test_a_replica_that_is_killed_leaves_no_node_alive_and_none_is_lost_by_that(
    service: Service, market: Market, node: FakeNode, postgres_url: str, tmp_path: Path, job_id: str
) -> None:
    folder, port = tmp_path / "killed", free_port()
    folder.mkdir()
    variables = environment(market, postgres_url, folder, port)
    variables["EVERLEASE_MARKETPLACE_MASTER_KEY_FILE"] = str(service.settings.master_key_file)
    settings = make_settings(market, postgres_url, folder, port=port)
    with process(variables, tmp_path / "log", settings.public_url) as killed:
        doomed = FakeNode(Service(settings.public_url, settings, None), market, node.key, node.provider)  # type: ignore[arg-type]
        doomed.connect()
        held = make_award(service.db, job_id, node.key, node.provider)
        assert doomed.beat(line(held)).refused == []
        with service.db.transaction() as tx:
            assert gateways.sever_orphans(tx) == 0
        killed.kill()
        killed.wait()
    until, severed = time.monotonic() + 20, 0
    while not severed and time.monotonic() < until:
        with service.db.transaction() as tx:
            severed = gateways.sever_orphans(tx)
        time.sleep(0.1)
    assert severed == 1
    with service.client() as client:
        (shown,) = client.get("/v1/nodes").json()["items"]
        assert (shown["connected"], shown["liveness"]) == (False, "SUSPECT")
        again = FakeNode(service, market, node.key, node.provider)
        welcome = again.connect(({"job_id": job_id, "fence": held.fence, "state": "frozen"},))
        assert (welcome.confirmed, welcome.resume_after_s) == ({job_id: held.fence}, 0)
        (shown,) = client.get("/v1/nodes").json()["items"]
        assert (shown["connected"], shown["liveness"], shown["losses"]) == (True, "ALIVE", 0)
    assert again.beat(line(held)).refused == []
    again.close()


def test_a_replica_with_another_master_key_does_not_start(market: Market, postgres_url: str, tmp_path: Path) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    port = free_port()
    variables = environment(market, postgres_url, tmp_path / "first", port)
    with process(variables, tmp_path / "log", f"http://127.0.0.1:{port}"):
        other = environment(market, postgres_url, tmp_path / "second", free_port())
        done = subprocess.run(
            [sys.executable, "-m", "marketplace"], env=other, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 2
        assert "wrapped under another master key: copy the file" in done.stderr
        assert "Traceback" not in done.stderr
        key = tmp_path / "first" / "master.key"
        other["EVERLEASE_MARKETPLACE_MASTER_KEY_FILE"] = str(key)
        with process(other, tmp_path / "log2", other["EVERLEASE_MARKETPLACE_PUBLIC_URL"]):
            pass


def test_one_that_started_before_its_database_was_there_ends_when_its_key_is_another(
    market: Market, postgres_server: PostgresServer, tmp_path: Path
) -> None:
    """Before the migration it waits; the first hello is refused, and the process ends with its sentence."""
    market.stake()
    name, port = postgres_server.create_database("template0"), free_port()
    database_url, log = postgres_server.url(name), tmp_path / "log"
    variables = environment(market, database_url, tmp_path, port)
    settings = make_settings(market, database_url, tmp_path, port=port)
    with log.open("wb") as output:
        running = subprocess.Popen([sys.executable, "-m", "marketplace"], env=variables, stderr=output, stdout=output)
    try:
        _await_up(settings.public_url, running, log, "healthz")
        ready = httpx.get(f"{settings.public_url}/readyz", timeout=5, trust_env=False)
        assert (ready.status_code, ready.json()["checks"]["master key"]) == (503, "unavailable")
        upgrade(database_url)
        database = Database(database_url)
        with database.transaction() as tx:
            KeyService(os.urandom(32)).check(tx)
        node = FakeNode(Service(settings.public_url, settings, None), market, market.node, market.provider)  # type: ignore[arg-type]
        with pytest.raises(ConnectionClosed):
            node.connect()
        assert running.wait(15) == 2
        with database.transaction() as tx:
            assert nodes.get(tx, market.node.address) is None, "it was not admitted"
        database.close()
    finally:
        running.kill()
        running.wait()
        postgres_server.drop_database(name)
    told = log.read_text()
    assert "the database is not migrated" in told
    assert told.count("marketplace: the job keys in this database are wrapped under another master key: copy") == 1
    assert "Traceback" not in told


@contextmanager
def process(variables: dict[str, str], log: Path, url: str) -> Iterator["subprocess.Popen[bytes]"]:
    """A marketplace of its own process, up; killed at the end if it still runs."""
    with log.open("wb") as output:
        running = subprocess.Popen([sys.executable, "-m", "marketplace"], env=variables, stderr=output, stdout=output)
    try:
        _await_up(url, running, log)
        yield running
    finally:
        running.kill()
        running.wait()


def test_settings_that_cannot_be_used_are_one_sentence(market: Market, postgres_url: str, tmp_path: Path) -> None:
    variables = environment(market, postgres_url, tmp_path, 0)
    variables["EVERLEASE_MARKETPLACE_WATCHER"] = "nobody"
    done = subprocess.run(
        [sys.executable, "-m", "marketplace"], env=variables, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2
    assert "watcher" in done.stderr
    assert "Traceback" not in done.stderr


def _await_up(url: str, process: "subprocess.Popen[bytes]", log: Path, path: str = "readyz") -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        assert process.poll() is None, log.read_text()
        try:
            if httpx.get(f"{url}/{path}", timeout=5, trust_env=False).status_code == 200:
                return
        except httpx.HTTPError:
            time.sleep(0.1)
    raise AssertionError("the marketplace did not come up: " + log.read_text())
