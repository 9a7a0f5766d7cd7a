"""Side by side on one Anvil: our indexer into PostgreSQL, web3.py's get_logs, and Ponder where it is installed.

.venv/bin/python scripts/bench_indexer.py --events 100000 [--ponder FOLDER]

The chain is real, the contract logs what it is told (tests/support/emitter.py): jobs that are funded, leases that are
opened, collected from and closed. FOLDER is an npm project with ponder, viem and hono in it
(`npm install --ignore-scripts ponder@0.16.6 viem hono typescript`), and is written to.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from bench_ponder import run_ponder

from everlease.chain._generated import events as ev
from everlease.chain._generated.enums import CreditReason
from everlease.chain.abi import artifact
from everlease.chain.deployment import Deployment
from everlease.chain.heads import HeadWaiter
from everlease.chain.rpc import RpcChain
from everlease.db import Database
from indexer.follower import Follower, Step
from indexer.service import IndexerLoop
from tests.support.anvil import Anvil, running_anvil
from tests.support.deployed import TERMS
from tests.support.emitter import CODE, record
from tests.support.events import as_log
from tests.support.postgres import running_postgres

ESCROW, STAKING = "0x" + "e5" * 20, "0x" + "57" * 20
DEPLOYMENT = Deployment(31337, ESCROW, STAKING, "0x" + "a5" * 20, 1, TERMS)
PER_BLOCK = 100


def job_events(number: int) -> list[tuple[str, ev.Event]]:
    """The 20 events of one job's life: funded, opened, collected from with a credit now and then, closed, refunded."""
    job, lease = number.to_bytes(32, "big"), (number + 2**128).to_bytes(32, "big")
    tenant, provider = "0x" + f"{number % 997 + 1:040x}", "0x" + f"{number % 97 + 1000:040x}"
    found: list[tuple[str, ev.Event]] = [
        (ESCROW, ev.JobFunded(job, tenant, tenant, job, 10**6, 10**9, 10**6, 5, 3, 1000, 2**40, number)),
        (ESCROW, ev.LeaseOpened(job, lease, provider, provider, 1, *[10**6] * 3, 10, 1, 4000, 9000, 9060, number, job)),
    ]
    found += [(ESCROW, ev.LeaseCollected(job, lease, 10 * n, 4000 + n, n, 100, 1, 10**6, job)) for n in range(1, 16)]
    found += [
        (
            ESCROW,
            ev.Credited(provider, 1500, CreditReason.REFUND),
        )
    ]
    found += [
        (ESCROW, ev.LeaseClosed(job, lease, tenant, 1000)),
        (ESCROW, ev.Credited(tenant, 10, CreditReason.REFUND)),
    ]
    return found


def fill(anvil: Anvil, events: int) -> None:
    """Put ``events`` events on the chain, 100 a block, and empty blocks until all of them are final."""
    for address in (ESCROW, STAKING):
        anvil.rpc("anvil_setCode", address, CODE)
    anvil.mine()
    sender = anvil.rpc("eth_accounts")[0]
    waiting: list[bytes] = []
    for number in range(events // 20):
        waiting += [record(as_log(where, event)) for where, event in job_events(number)]
        if len(waiting) >= PER_BLOCK:
            send(anvil, sender, b"".join(waiting[:PER_BLOCK]))
            waiting = waiting[PER_BLOCK:]
    if waiting:
        send(anvil, sender, b"".join(waiting))
    anvil.mine(100)


def send(anvil: Anvil, sender: str, data: bytes) -> None:
    """One transaction, which is one block."""
    call = {"from": sender, "to": ESCROW, "data": "0x" + data.hex(), "gas": hex(15_000_000)}
    anvil.rpc("eth_sendTransaction", call)


def run_ours(rpc: str, database_url: str) -> dict[str, Any]:
    """Back-fill with header checks, blooms, derived rows, outbox and cursor."""
    database, chain = Database(database_url), RpcChain.connect([rpc], timeout=60)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    counted = [0]
    started = time.perf_counter()

    def count(step: Step, events: int) -> None:
        counted[0] += events

    Follower(chain, DEPLOYMENT, database, on_step=count).catch_up()
    return report(started, counted[0], before)


def run_web3(rpc: str, *, decode: bool) -> dict[str, Any]:
    """get_logs in ranges of 50 blocks (5,000 events), nothing stored; with ``decode`` each log through process_log."""
    from web3 import HTTPProvider, Web3

    web3 = Web3(HTTPProvider(rpc, request_kwargs={"timeout": 60}))
    contract = web3.eth.contract(address=Web3.to_checksum_address(ESCROW), abi=artifact("LeaseEscrow")["abi"])
    by_topic = {
        kind.TOPIC0: contract.events[kind.__name__]() for kind in ev.EVENTS.values() if kind.CONTRACT == "LeaseEscrow"
    }
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    count, head = 0, web3.eth.block_number
    started = time.perf_counter()
    for first in range(0, head + 1, 50):
        logs = web3.eth.get_logs({"fromBlock": first, "toBlock": min(first + 49, head), "address": contract.address})
        count += len(logs)
        if decode:
            for log in logs:
                by_topic[bytes(log["topics"][0])].process_log(log)
    return report(started, count, before)


def report(started: float, events: int, before_kib: int) -> dict[str, Any]:
    """Seconds, events per second, and how far the process's memory rose, MiB."""
    seconds = time.perf_counter() - started
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib) / 1024
    return {"seconds": round(seconds, 2), "events": events, "per_second": round(events / seconds), "mib": round(grown)}


def live_lag(anvil: Anvil, database_url: str, blocks: int) -> dict[str, Any]:
    """Milliseconds from the block being there (the mining call returned) to its rows being committed."""
    done: dict[str, float] = {}
    seen = threading.Event()
    database, chain = Database(database_url), RpcChain.connect([anvil.url])

    def note(step: Step, events: int) -> None:
        if step in (Step.APPLIED, Step.BACKFILLED) and events:
            done["at"] = time.perf_counter()
            seen.set()

    follower = Follower(chain, DEPLOYMENT, database, on_step=note)
    follower.catch_up()
    loop = IndexerLoop(follower, HeadWaiter(anvil.ws_url, poll_s=0.5))
    thread = threading.Thread(target=loop.run)
    thread.start()
    time.sleep(1)
    lags = []
    sender = anvil.rpc("eth_accounts")[0]
    for number in range(blocks):
        seen.clear()
        send(anvil, sender, record(as_log(*job_events(10**9 + number)[0])))
        mined = time.perf_counter()
        seen.wait(10)
        lags.append(max(0.0, (done["at"] - mined) * 1000))
        time.sleep(0.05)
    loop.stop()
    anvil.mine()
    thread.join()
    chain.close()
    database.close()
    return {"median_ms": round(statistics.median(lags), 1), "p95_ms": round(sorted(lags)[int(len(lags) * 0.95)], 1)}


def part(name: str, *arguments: str) -> dict[str, Any]:
    """A part in a process of its own, so that memory is its alone."""
    done = subprocess.run(
        [sys.executable, __file__, "--part", name, *arguments], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(f"{name:14} {found}", flush=True)
    return found


def main() -> None:
    """Fill a chain, run each part on it, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--live-blocks", type=int, default=60)
    parser.add_argument("--ponder", type=Path)
    parser.add_argument("--part", choices=["ours", "web3", "web3-decoded"])
    parser.add_argument("--rpc")
    parser.add_argument("--database")
    chosen = parser.parse_args()
    if chosen.part:
        parts = {
            "ours": lambda: run_ours(chosen.rpc, chosen.database),
            "web3": lambda: run_web3(chosen.rpc, decode=False),
            "web3-decoded": lambda: run_web3(chosen.rpc, decode=True),
        }
        print(json.dumps(parts[chosen.part]()))
        return
    with running_postgres() as server, running_anvil("--disable-block-gas-limit", slots=16) as anvil:
        started = time.monotonic()
        fill(anvil, chosen.events)
        print(f"chain filled in {time.monotonic() - started:.0f} s", flush=True)
        url = server.url(server.create_database())
        ours = part("ours", "--rpc", anvil.url, "--database", url)
        results = {name: part(name, "--rpc", anvil.url) for name in ("web3", "web3-decoded")}
        if chosen.ponder:
            results["ponder"] = run_ponder(chosen.ponder, anvil.url, ESCROW, chosen.events)
            print(f"{'ponder':14} {results['ponder']}", flush=True)
        for name, other in results.items():
            print(f"ours is {other['seconds'] / ours['seconds']:.1f} times as fast as {name}")
        print("live lag", live_lag(anvil, url, chosen.live_blocks))


if __name__ == "__main__":
    main()
