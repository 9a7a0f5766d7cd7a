"""Seeded reorg scenarios: the mirror in PostgreSQL must equal the fold of the canonical chain after each.

.venv/bin/python scripts/reorg_campaign.py --scenarios 10000 --seed 1 [--processes 2] [--seconds 600]
.venv/bin/python scripts/reorg_campaign.py --anvil --scenarios 200

Scenario n is seed n: a failure names it and `--seed n --scenarios 1` repeats it. Stopped early (or by --seconds), it
prints the --seed to go on with.
"""

import argparse
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from everlease.db import Database
from tests.support.anvil import running_anvil
from tests.support.anvil_campaign import AnvilScenario
from tests.support.campaign import Scenario
from tests.support.deployed import make_market
from tests.support.postgres import running_postgres

CHUNK = 50


def play(url: str, seeds: range) -> tuple[Counter[str], list[str]]:
    """Run scenarios on one database; returns sums (``deepest``: the maximum) and what failed."""
    import logging

    import structlog

    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    database, total, failed = Database(url, pool_size=1), Counter[str](), []
    for seed in seeds:
        scenario = Scenario(seed, database)
        try:
            scenario.run()
        except Exception as error:
            failed.append(f"seed {seed}: {type(error).__name__}: {str(error)[:300]}")
        deepest = max(total["deepest"], scenario.tally["deepest"])
        total.update(scenario.tally)
        total["deepest"] = deepest
    database.close()
    return total, failed


def play_on_anvil(seeds: range, seconds: float) -> int:
    """Scenarios on one real Anvil with the real contracts; the first wrong one ends it with its traceback."""
    import logging

    import structlog

    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    depths: list[int] = []
    started = time.monotonic()
    with running_postgres() as server, running_anvil(slots=256) as node:
        databases = [Database(server.url(server.create_database())) for _ in range(2)]
        market = make_market(node)
        market.send(market.provider, market.asset.approve(market.deployment.staking, 2**128))
        done = 0
        for seed in seeds:
            if time.monotonic() - started > seconds:
                print(f"go on with --seed {seed} --scenarios {seeds.stop - seed}")
                break
            done += 1
            scenario = AnvilScenario(seed, market, *databases)
            scenario.run()
            depths += scenario.depths
        market.chain.close()
        for database in databases:
            database.close()
    elapsed = time.monotonic() - started
    print(f"{done} scenarios on Anvil, {len(depths)} reorgs to {max(depths)} deep, 0 wrong, {elapsed:.0f} s")
    return 0


def main() -> int:
    """Exit code 1 if any scenario left a wrong mirror."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenarios", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--anvil", action="store_true", help="on a real Anvil, with anvil_reorg")
    chosen = parser.parse_args()
    if chosen.anvil:
        return play_on_anvil(range(chosen.seed, chosen.seed + chosen.scenarios), chosen.seconds)
    started, done, last = time.monotonic(), 0, chosen.seed + chosen.scenarios
    total: Counter[str] = Counter()
    failures: list[str] = []
    at = chosen.seed
    with running_postgres() as server, ProcessPoolExecutor(chosen.processes) as pool:
        urls = [server.url(server.create_database()) for _ in range(chosen.processes)]
        while at < last and time.monotonic() - started < chosen.seconds:
            slices = []
            for _ in urls:
                slices.append(range(at, min(at + CHUNK, last)))
                at = slices[-1].stop
            for counted, failed in pool.map(play, urls, slices):
                deepest = max(total["deepest"], counted["deepest"])
                total.update(counted)
                total["deepest"] = deepest
                failures += failed
            done = at - chosen.seed
            print(f"{done} scenarios, {len(failures)} wrong, {time.monotonic() - started:.0f} s", flush=True)
    print(", ".join(f"{name} {count}" for name, count in sorted(total.items())))
    print(*failures, sep="\n")
    if at < last:
        print(f"go on with --seed {at} --scenarios {last - at}")
    print(f"{done} scenarios from seed {chosen.seed}: {done - len(failures)} right, {len(failures)} wrong")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
