"""p95 of every explorer endpoint on a generated mirror, through the app but without a network, in milliseconds.

.venv/bin/python scripts/bench_explorer.py --leases 1000000 [--requests 50]
"""

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from everlease.db import Database
from indexer.app import Metrics, create_app
from tests.support.explorer_rows import fill, get, paths
from tests.support.postgres import running_postgres


def main() -> None:
    """Fill, ask, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--leases", type=int, default=1_000_000)
    parser.add_argument("--requests", type=int, default=50)
    chosen = parser.parse_args()
    with running_postgres() as server:
        database = Database(server.url(server.create_database()))
        started = time.monotonic()
        fill(database, chosen.leases)
        print(f"{chosen.leases} leases, {chosen.leases * 10} events in {time.monotonic() - started:.0f} s", flush=True)
        app = create_app(database, Metrics())
        for name, path in paths(chosen.leases).items():
            took = []
            for _ in range(chosen.requests):
                began = time.perf_counter()
                get(app, path).raise_for_status()
                took.append((time.perf_counter() - began) * 1000)
            took.sort()
            median, late = took[len(took) // 2], took[int(len(took) * 0.95)]
            print(f"{name:22} median {median:7.1f}  p95 {late:7.1f}", flush=True)
        database.close()


if __name__ == "__main__":
    main()
