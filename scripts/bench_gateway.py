"""Heartbeats of nodes while strangers flood the gateway: how long an acknowledgement takes, and who gets in.

.venv/bin/python scripts/bench_gateway.py [--seconds 20] [--nodes 20] [--kinds silent leave large deep signed pings]

The marketplace is a process of its own on PostgreSQL; four strangers at nice 19 share one core and have one loopback
address each (scripts/bench_flood.py). Nodes beat once a second from a fifth address; one more connects anew each
second, from a network that the gateway does not know. Passes if the 99th percentile of acknowledgements is at most
250 ms and the longest 1 s; exit code 1 if not, 3 if the machine's owner took more than 5 % of the CPU meanwhile (then
the run says nothing).
"""

import argparse
import asyncio
import base64
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from bench_flood import KINDS
from nacl.public import PrivateKey
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

from everlease.chain.keys import Key
from everlease.chain.typed_data import NodeHello, node_hello_digest
from everlease.db import Database
from everlease.db.models.mirror import NodeAuthRow, ProviderRow
from tests.support.lease_history import DEPLOYMENT
from tests.support.postgres import running_postgres

STRANGERS = ("127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.5")
NODES_AT, NEWCOMER_AT = "127.0.0.1", "127.0.0.6"
P99_S, LONGEST_S, STEAL = 0.25, 1.0, 0.05
PROVIDER = "0x" + "0b" * 20


class Node:
    """A node that speaks as much of the protocol as heartbeats need."""

    def __init__(self, url: str, number: int, source: str) -> None:
        self.key = Key.of(number.to_bytes(32, "big"))
        self._url, self._source = url, source
        self._sealing = bytes(PrivateKey.generate().public_key)

    async def enter(self) -> ClientConnection:
        """Connect and be admitted. Raises what websockets raises."""
        link = await connect(self._url, proxy=None, ping_interval=None, local_addr=(self._source, 0))
        challenge = json.loads(await link.recv())
        hello = NodeHello(challenge["nonce"], self.key.address, PROVIDER, self._sealing)
        said = {
            "type": "hello",
            "node": self.key.address,
            "provider": PROVIDER,
            "nonce": challenge["nonce"],
            "sealing_key": base64.b64encode(self._sealing).decode(),
            "version": "bench",
            "facts": {"cores": 4},
            "signature": self.key.sign(node_hello_digest(DEPLOYMENT.escrow_domain, hello)),
        }
        await link.send(json.dumps(said))
        await link.recv()
        return link

    async def beat(self, link: ClientConnection, until: float, took: list[float], lost: list[str]) -> None:
        """Beat once a second; ``took`` gets the seconds of each acknowledgement."""
        number = 0
        try:
            while time.monotonic() < until:
                number += 1
                began = time.monotonic()
                await link.send(json.dumps({"type": "heartbeat", "seq": number, "jobs": []}))
                while json.loads(await link.recv())["type"] != "heartbeat_ack":
                    pass
                took.append(time.monotonic() - began)
                await asyncio.sleep(max(0.0, 1 - took[-1]))
        except WebSocketException as error:
            lost.append(str(error))
        await link.close()


async def come_anew(node: Node, until: float, took: list[float], failed: list[str]) -> None:
    """Connect once a second; how long that takes, and why it failed if it did."""
    while time.monotonic() < until:
        began = time.monotonic()
        try:
            async with asyncio.timeout(10):
                await (await node.enter()).close()
            took.append(time.monotonic() - began)
        except (OSError, TimeoutError, WebSocketException) as error:
            failed.append(f"{type(error).__name__}: {error}")
        await asyncio.sleep(max(0.0, 1 - (time.monotonic() - began)))


async def measure(url: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Let the nodes in, then the strangers come; what the nodes saw."""
    took: list[float] = []
    lost: list[str] = []
    entered: list[float] = []
    failed: list[str] = []
    nodes = [Node(url, number + 1, NODES_AT) for number in range(arguments.nodes)]
    links = [await node.enter() for node in nodes]
    until = time.monotonic() + arguments.seconds
    beats = [asyncio.create_task(node.beat(link, until, took, lost)) for node, link in zip(nodes, links, strict=True)]
    core = ["--core", str(max(os.sched_getaffinity(0)))]
    flood = [sys.executable, str(Path(__file__).with_name("bench_flood.py")), url]
    strangers = [await asyncio.create_subprocess_exec(*flood, source, *arguments.kinds, *core) for source in STRANGERS]
    newcomer = Node(url, arguments.nodes + 1, NEWCOMER_AT)
    try:
        await asyncio.gather(*beats, come_anew(newcomer, until, entered, failed))
    finally:
        for stranger in strangers:
            if stranger.returncode is None:
                stranger.kill()
            await stranger.wait()
    return {
        "heartbeats": len(took),
        "ack_p50_ms": round(percentile(took, 0.5) * 1000, 1),
        "ack_p99_ms": round(percentile(took, 0.99) * 1000, 1),
        "ack_max_ms": round(max(took) * 1000, 1),
        "nodes_lost": len(lost),
        "newcomer_entered": len(entered),
        "newcomer_p50_ms": round(percentile(entered, 0.5) * 1000, 1) if entered else None,
        "newcomer_failed": len(failed),
    }


def percentile(values: list[float], part: float) -> float:
    """The value below which this part of them lies."""
    return sorted(values)[min(int(len(values) * part), len(values) - 1)]


def cpu_times() -> tuple[int, int]:
    """Ticks of all CPUs: taken by the machine's owner, and all."""
    fields = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return fields[7], sum(fields)


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def samples(port: int, metric: str) -> dict[str, float]:
    """A metric of the gateway's, by its one label."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    found = (line for line in lines if line.startswith(metric))
    return {line.split('"')[1]: float(line.rsplit(" ", 1)[1]) for line in found}


def fill(database: Database, nodes: int) -> None:
    """The mirror's rows of a provider with a stake and its nodes."""
    units = dict.fromkeys(("locked", "unbonding", "unbonds_at", "slashed", "leases", "failed", "earned"), 0)
    with database.transaction() as tx:
        tx.add(ProviderRow(provider=PROVIDER, staked=10**9, metadata_cid="", block=1, **units))
        for number in range(nodes):
            node = Key.of((number + 1).to_bytes(32, "big")).address
            tx.add(NodeAuthRow(node=node, provider=PROVIDER, active=True, block=1))


def start(folder: Path, database_url: str, port: int) -> "subprocess.Popen[bytes]":
    """The marketplace, up. Its chain is away: no node here needs one."""
    DEPLOYMENT.save(folder / "deployment.json")
    values = {
        "DEPLOYMENTS": folder / "deployment.json",
        "RPC_URLS": '["http://127.0.0.1:9"]',
        "DATABASE_URL": database_url,
        "PORT": port,
        "PUBLIC_URL": f"http://127.0.0.1:{port}",
        "WATCHER": "0x" + "11" * 20,
        "STORE": folder / "store",
        "STORE_TOKEN_SECRET": "s" * 32,
        "MASTER_KEY_FILE": folder / "master.key",
        "LOG_LEVEL": "WARNING",
    }
    environment = os.environ | {f"EVERLEASE_MARKETPLACE_{name}": str(value) for name, value in values.items()}
    process = subprocess.Popen([sys.executable, "-m", "marketplace"], env=environment)
    for _ in range(600):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=1):
                return process
        except OSError:
            time.sleep(0.1)
    process.kill()
    raise SystemExit("the marketplace did not start")


def main() -> int:
    """Measure, print, judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--nodes", type=int, default=20)
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS))
    arguments = parser.parse_args()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with running_postgres(durable=True) as postgres, tempfile.TemporaryDirectory() as folder:
        url = postgres.url(postgres.create_database())
        database = Database(url)
        fill(database, arguments.nodes + 1)
        database.close()
        market = start(Path(folder), url, port)
        try:
            before, own = cpu_times(), cpu_seconds(market.pid)
            found = asyncio.run(measure(f"ws://127.0.0.1:{port}/v1/node", arguments))
            after = cpu_times()
            found["gateway_cpu_s"] = round(cpu_seconds(market.pid) - own, 2)
            found["loop_lag"] = samples(port, "everlease_loop_lag_seconds_bucket")
            found["greetings"] = samples(port, "everlease_gateway_greetings_total")
        finally:
            market.terminate()
            market.wait()
    steal = (after[0] - before[0]) / max(after[1] - before[1], 1)
    print(json.dumps({**found, "kinds": arguments.kinds, "steal": round(steal, 4)}, indent=1))
    if steal > STEAL:
        print("void: the machine's owner took too much of the CPU")
        return 3
    well = found["ack_p99_ms"] <= P99_S * 1000 and found["ack_max_ms"] <= LONGEST_S * 1000
    return 0 if well and not found["nodes_lost"] else 1


if __name__ == "__main__":
    sys.exit(main())
