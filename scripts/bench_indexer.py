"""Our indexer beside web3.py and Ponder on one Anvil; its memory at 10^4 to 10^6 events; its lag behind the head.

.venv/bin/python scripts/bench_indexer.py [--events 100000] [--repeat 2] [--ponder FOLDER]
.venv/bin/python scripts/bench_indexer.py --memory
.venv/bin/python scripts/bench_indexer.py --live

The chain is real, the contract logs what it is told (tests/support/emitter.py): jobs that are funded, leases that are
opened, collected from and closed. For --memory it is a server that makes blocks up (tests/support/rpc_replay.py), as
Anvil would need gigabytes. FOLDER is an npm project with ponder, viem and hono in it
(`npm install --ignore-scripts ponder@0.16.6 viem hono typescript`), and is written to. PostgreSQL runs with its own
settings, fsync included.
"""

import argparse
import json
import statistics
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from bench_ponder import run_ponder

from everlease.chain.heads import HeadWaiter
from everlease.chain.rpc import RpcChain
from everlease.db import Database
from indexer.follower import Follower, Step
from indexer.service import IndexerLoop
from tests.support.anvil import Anvil, running_anvil
from tests.support.emitter import CODE, record
from tests.support.events import as_log
from tests.support.lease_history import (
    DEPLOYMENT,
    ESCROW,
    EVENTS_PER_BLOCK,
    EVENTS_PER_JOB,
    STAND_INS,
    job_events,
    renamed,
)
from tests.support.postgres import PostgresServer, running_postgres
from tests.support.rpc_replay import running_replay

JOB = [record(as_log(ESCROW, event)).hex() for event in job_events(*STAND_INS)]
DOES = {
    "ours": "headers linked, blooms, decoded, derived rows, totals, outbox and cursor in PostgreSQL",
    "web3": "reads and formats; stores nothing",
    "web3-decoded": "the same and `process_log`",
    "ponder": "raw events into one table of its own store",
}


def prepare(anvil: Anvil) -> str:
    """Put the emitter where the contracts would be; returns an account that may send."""
    for address in (DEPLOYMENT.escrow, DEPLOYMENT.staking):
        anvil.rpc("anvil_setCode", address, CODE)
    anvil.mine()
    return str(anvil.rpc("eth_accounts")[0])


def fill(anvil: Anvil, events: int) -> None:
    """Put ``events`` events on the chain, 100 a block, and empty blocks until all of them are final."""
    sender, job = prepare(anvil), "".join(JOB)
    per_block = EVENTS_PER_BLOCK // EVENTS_PER_JOB
    for first in range(0, events // EVENTS_PER_JOB, per_block):
        send(anvil, sender, "".join(renamed(job, first + number) for number in range(per_block)))
    anvil.mine(100)


def send(anvil: Anvil, sender: str, data: str) -> None:
    """One transaction, which is one block."""
    anvil.rpc("eth_sendTransaction", {"from": sender, "to": ESCROW, "data": "0x" + data, "gas": hex(15_000_000)})


def reader(name: str, *arguments: str) -> dict[str, Any]:
    """A reader in a process of its own, so that memory is its alone."""
    script = str(Path(__file__).with_name("bench_readers.py"))
    done = subprocess.run([sys.executable, script, name, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(f"{name:14} {found}", flush=True)
    return found


def run_ours(server: PostgresServer, rpc: str) -> dict[str, Any]:
    """Our reader into a database of its own."""
    name = server.create_database()
    try:
        return reader("ours", "--rpc", rpc, "--database", server.url(name))
    finally:
        server.drop_database(name)


def side_by_side(events: int, repeat: int, ponder: Path | None) -> None:
    """Fill a chain, let each reader read it in turn, ``repeat`` times, and print a table of the medians."""
    results: dict[str, list[dict[str, Any]]] = {}
    with running_postgres(durable=True) as server, running_anvil("--disable-block-gas-limit", slots=16) as anvil:
        started = time.monotonic()
        fill(anvil, events)
        print(f"chain filled in {time.monotonic() - started:.0f} s", flush=True)
        for _ in range(repeat):
            results.setdefault("ours", []).append(run_ours(server, anvil.url))
            for name in ("web3", "web3-decoded"):
                results.setdefault(name, []).append(reader(name, "--rpc", anvil.url))
            if ponder is not None:
                results.setdefault("ponder", []).append(run_ponder(ponder, anvil.url, ESCROW, events))
                print(f"{'ponder':14} {results['ponder'][-1]}", flush=True)
    mine = statistics.median(run["seconds"] for run in results["ours"])
    print("\n| | seconds | events/s | ours is | memory grew, MiB | does |\n|---|---|---|---|---|---|")
    for name, runs in results.items():
        assert {run["events"] for run in runs} == {events}, f"{name} did not read every event"
        seconds = statistics.median(run["seconds"] for run in runs)
        memory = statistics.median(run["mib"] for run in runs)
        shown = f"| {name} | {seconds:.2f} | {events / seconds:,.0f} | {seconds / mine:.1f} × | {memory:.0f} |"
        print(f"{shown} {DOES[name]} |")
        if "backfill" in runs[0]:
            inner = statistics.median(run["backfill"] for run in runs)
            print(f"| {name}, back-fill by its own log | {inner:.2f} | {events / inner:,.0f} | {inner / mine:.1f} × |")


def memory() -> None:
    """How far the peak of memory rises over three magnitudes of events."""
    print("| events | seconds | events/s | memory grew, MiB |\n|---|---|---|---|")
    with running_postgres() as server:
        for events in (10**4, 10**5, 10**6):
            with running_replay(events) as rpc:
                found = run_ours(server, rpc)
            assert found["events"] == events, "events are missing"
            print(
                f"| {events:,} | {found['seconds']:.1f} | {events / found['seconds']:,.0f} | {found['mib']} |",
                flush=True,
            )


def live(blocks: int) -> None:
    """Milliseconds from a block being there to its rows being committed: at the least, from the node's answer that the
    transaction is mined, and at the most, from sending it."""
    with running_postgres(durable=True) as server, running_anvil("--disable-block-gas-limit", slots=16) as anvil:
        sender = prepare(anvil)
        anvil.mine(40)
        lags = _lags(anvil, server.url(server.create_database()), sender, blocks)
    for name, found in zip(("since mined", "since sent"), zip(*lags, strict=True), strict=True):
        p95 = sorted(found)[int(len(found) * 0.95)]
        print(f"{name}, {blocks} blocks: median {statistics.median(found):.0f} ms, p95 {p95:.0f} ms")


def _lags(anvil: Anvil, database_url: str, sender: str, blocks: int) -> list[tuple[float, float]]:
    committed: list[float] = []
    seen = threading.Event()
    database, chain = Database(database_url), RpcChain.connect([anvil.url])

    def note(step: Step, events: int) -> None:
        if step in (Step.APPLIED, Step.BACKFILLED) and events:
            committed.append(time.perf_counter())
            seen.set()

    with ThreadPoolExecutor(1) as executor:
        follower = Follower(chain, DEPLOYMENT, database, on_step=note, executor=executor)
        follower.catch_up()
        stopping = threading.Event()
        loop = IndexerLoop(follower, HeadWaiter(anvil.ws_url, poll_s=0.5), stopping)
        thread = threading.Thread(target=loop.run, args=(lambda: None,))
        thread.start()
        time.sleep(1)
        lags = []
        for number in range(blocks):
            seen.clear()
            sent = time.perf_counter()
            send(anvil, sender, renamed(JOB[0], number))
            mined = time.perf_counter()
            if not seen.wait(10):
                raise SystemExit("no row within 10 s of a block")
            lags.append((max(0.0, committed[-1] - mined) * 1000, (committed[-1] - sent) * 1000))
            time.sleep(0.05)
        stopping.set()
        anvil.mine()
        thread.join()
    chain.close()
    database.close()
    return lags


def main() -> None:
    """One of the three."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--repeat", type=int, default=2)
    parser.add_argument("--ponder", type=Path)
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--live", action="store_true")
    parser.add_argument("--live-blocks", type=int, default=100)
    chosen = parser.parse_args()
    if chosen.memory:
        memory()
    elif chosen.live:
        live(chosen.live_blocks)
    else:
        side_by_side(chosen.events, chosen.repeat, chosen.ponder)


if __name__ == "__main__":
    main()
