"""Milliseconds that each explorer endpoint takes on a generated mirror, over HTTP: a table in Markdown.

.venv/bin/python scripts/bench_explorer.py --leases 1000000 [--requests 300] [--seed 1]

The mirror has ten events a lease and few parties that take part in most. Each endpoint is asked with other parameters
each time: half of the parties are the busiest, half of the pages begin anywhere, a fifth has 200 rows, the others 50.
"""

import argparse
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import uvicorn

sys.path.insert(0, str(Path(__file__).parent.parent))

from everlease.db import Database
from everlease.stack.ports import free_port, listening
from indexer.app import Metrics, create_app
from tests.support.explorer_requests import requests
from tests.support.explorer_rows import fill
from tests.support.postgres import running_postgres


def main() -> None:
    """Fill, ask, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--leases", type=int, default=1_000_000)
    parser.add_argument("--requests", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--serve", nargs=2, metavar=("DATABASE", "PORT"), help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.serve:
        serve(chosen.serve[0], int(chosen.serve[1]))
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the server and its folder go
    with running_postgres() as server:
        url = server.url(server.create_database())
        database = Database(url)
        started = time.monotonic()
        fill(database, chosen.leases)
        database.close()
        print(
            f"{chosen.leases} leases, {chosen.leases * 10} events in {time.monotonic() - started:.0f} s\n", flush=True
        )
        with served(url) as client:
            measure(client, chosen.leases, chosen.requests, random.Random(chosen.seed))


def folder_of(url: str) -> Path:
    """Where the server that listens on a socket in its own folder keeps its data."""
    return Path(parse_qs(urlsplit(url).query)["host"][0])


def read_once(folder: Path) -> None:
    """Bring all data into the system's cache, where a server that has been up for a while has them."""
    for path in (folder / "base").rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                while file.read(2**20):
                    pass


def measure(client: httpx.Client, leases: int, count: int, chance: random.Random) -> None:
    """Ask each endpoint ``count`` times in turn; prints a row for each."""
    took: dict[str, list[float]] = {}
    kinds = list(requests(leases).items()) * count
    chance.shuffle(kinds)
    for name, draw in kinds:
        path = draw(chance)
        began = time.perf_counter()
        answer = client.get(f"/v1/explorer{path}")
        took.setdefault(name, []).append((time.perf_counter() - began) * 1000)
        assert answer.status_code == 200, (path, answer.text)
    print("| endpoint | median | p95 | max |\n|---|---|---|---|")
    for name in requests(leases):
        times = sorted(took[name])
        print(f"| {name} | {times[len(times) // 2]:.1f} | {times[int(len(times) * 0.95)]:.1f} | {times[-1]:.1f} |")


@contextmanager
def served(url: str) -> Iterator[httpx.Client]:
    """The explorer on a free port, in a process of its own."""
    port = free_port("127.0.0.1")
    process = subprocess.Popen([sys.executable, __file__, "--serve", url, str(port)])
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            while not listening("127.0.0.1", port):
                time.sleep(0.05)
            yield client
    finally:
        process.terminate()
        process.wait()


def serve(url: str, port: int) -> None:
    """Serve the explorer as ``python -m indexer`` does."""
    app = create_app(Database(url), Metrics())
    uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="warning", access_log=False)).run()


if __name__ == "__main__":
    main()
