"""Seeded fault schedules for the transaction sender: exactly one effect per action, whatever fails.

.venv/bin/python scripts/sender_campaign.py --schedules 1000 --seed 1

Schedule n is seed n: a failure names it and `--seed n --schedules 1` repeats it.
"""

import argparse
import sys
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.support.sender_campaign import Schedule


def main() -> int:
    """Exit code 1 if any action had no effect or two."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--schedules", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    started, wrong, total = time.monotonic(), 0, Counter[str]()
    for seed in range(chosen.seed, chosen.seed + chosen.schedules):
        schedule = Schedule(seed)
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
