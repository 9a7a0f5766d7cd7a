"""The readers that bench_indexer.py compares, each run in a process of its own: what it prints last is its result."""

import argparse
import gc
import json
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from everlease.chain._generated import events as ev
from everlease.chain.abi import artifact
from everlease.chain.rpc import RpcChain
from everlease.db import Database
from indexer.follower import Follower, Step
from indexer.service import GC_THRESHOLD
from tests.support.lease_history import DEPLOYMENT, ESCROW


def ours(rpc: str, database_url: str) -> dict[str, Any]:
    """Back-fill with header checks, blooms, derived rows, outbox and cursor, as `python -m indexer` does it."""
    gc.set_threshold(GC_THRESHOLD)
    database, chain = Database(database_url), RpcChain.connect([rpc], timeout=60)
    counted = 0

    def count(step: Step, events: int) -> None:
        nonlocal counted
        counted += events

    with ThreadPoolExecutor(1) as executor:
        follower = Follower(chain, DEPLOYMENT, database, on_step=count, executor=executor)
        follower.step()
        return measured(lambda: (follower.catch_up(), counted)[1])


def web3(rpc: str, *, decode: bool) -> dict[str, Any]:
    """get_logs in ranges of 50 blocks (5,000 events), nothing stored; with ``decode`` each log through process_log."""
    from web3 import HTTPProvider, Web3

    client = Web3(HTTPProvider(rpc, request_kwargs={"timeout": 60}))
    contract = client.eth.contract(address=Web3.to_checksum_address(ESCROW), abi=artifact("LeaseEscrow")["abi"])
    by_topic = {
        kind.TOPIC0: contract.events[kind.__name__]() for kind in ev.EVENTS.values() if kind.CONTRACT == "LeaseEscrow"
    }
    head = client.eth.block_number

    def read() -> int:
        count = 0
        for first in range(0, head + 1, 50):
            where = {"fromBlock": first, "toBlock": min(first + 49, head), "address": contract.address}
            logs = client.eth.get_logs(where)
            count += len(logs)
            if decode:
                for log in logs:
                    by_topic[bytes(log["topics"][0])].process_log(log)
        return count

    return measured(read)


def measured(read: Callable[[], int]) -> dict[str, Any]:
    """Seconds and events of ``read``, and how far it raised the process's peak of memory, MiB."""
    before = _peak_kib()
    started = time.perf_counter()
    events = read()
    seconds = time.perf_counter() - started
    return {"seconds": round(seconds, 2), "events": events, "mib": round((_peak_kib() - before) / 1024)}


def _peak_kib() -> int:
    """The peak since the program began; ru_maxrss would count the parent's before it."""
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1])


def main() -> None:
    """Run one reader."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("reader", choices=["ours", "web3", "web3-decoded"])
    parser.add_argument("--rpc", required=True)
    parser.add_argument("--database")
    chosen = parser.parse_args()
    if chosen.reader == "ours":
        found = ours(chosen.rpc, chosen.database)
    else:
        found = web3(chosen.rpc, decode=chosen.reader == "web3-decoded")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
