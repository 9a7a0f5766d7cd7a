"""Seeded fault schedules for the transaction sender: exactly one effect per action, whatever fails.

.venv/bin/python scripts/sender_campaign.py --schedules 1000 --seed 1
.venv/bin/python scripts/sender_campaign.py --postgres --schedules 100 --seed 1

Schedule n is seed n: a failure names it and `--seed n --schedules 1` repeats it. The journal is in memory, or with
--postgres in an embedded PostgreSQL, where each process has connections of its own that end when it crashes.
"""

import argparse
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.support.postgres import PostgresServer, running_postgres
from tests.support.sender_campaign import Schedule
from tests.support.sender_journals import Desk, MemoryDesk, PostgresDesk

MakeDesk = Callable[[Callable[[], float]], Desk]


@contextmanager
def journal_in_memory() -> Iterator[MakeDesk]:
    """An empty journal for one schedule."""
    yield MemoryDesk


@contextmanager
def journal_in_postgres(server: PostgresServer) -> Iterator[MakeDesk]:
    """An empty database for one schedule."""
    name = server.create_database()
    yield partial(PostgresDesk, server.url(name))
    server.drop_database(name)


def main() -> int:
    """Exit code 1 if any action had no effect or two, or the journal was wrong about one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--schedules", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--postgres", action="store_true", help="journal in PostgreSQL instead of memory")
    chosen = parser.parse_args()
    started, wrong, total = time.monotonic(), 0, Counter[str]()
    with running_postgres() if chosen.postgres else nullcontext() as server:
        for seed in range(chosen.seed, chosen.seed + chosen.schedules):
            with journal_in_postgres(server) if server is not None else journal_in_memory() as desk:
                schedule = Schedule(seed, desk)
                try:
                    schedule.run()
                except Exception as error:
                    wrong += 1
                    print(f"seed {seed}: {type(error).__name__}: {str(error)[:300]}")
                total += schedule.tally
    print(", ".join(f"{name} {count}" for name, count in sorted(total.items())))
    right = chosen.schedules - wrong
    print(f"{chosen.schedules} schedules: {right} right, {wrong} wrong, {time.monotonic() - started:.0f} s")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
