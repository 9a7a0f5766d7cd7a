"""An agent's stand-in for the campaign of kills: it extends leases, thaws what it finds fenced, keeps guards alive.

python -m tests.support.fence_agent STATE LOG FENCE_AFTER [PLANTED]. Each lease goes into LOG before it is given:
"CONTAINER TIME DEADLINE", boot-clock seconds. Killed at any moment, it starts again with the same words.
PLANTED seconds are given on top of what LOG says: a fault that the campaign must notice.
"""

import sys
import time
from contextlib import suppress
from pathlib import Path

from provider_agent import guards
from provider_agent.guard import boottime
from provider_agent.runtime.errors import ContainerFault

PERIOD_S = 0.2


def main(state: Path, log: Path, fence_after: float, planted: float = 0.0) -> None:
    with log.open("a", buffering=1, encoding="ascii") as stream:
        while True:
            folders = [record.parent for record in sorted((state / "containers").glob("*/outer.json"))]
            for folder in folders:
                now = boottime()
                stream.write(f"{folder.name} {now:.6f} {now + fence_after:.6f}\n")
                try:
                    if guards.fenced(folder):
                        guards.thaw(folder, now + fence_after + planted)
                    else:
                        guards.extend(folder, now + fence_after + planted)
                except (ContainerFault, OSError):
                    continue
            for folder in folders:
                with suppress(ContainerFault, OSError):
                    if guards.ensure(folder):
                        break  # leases first
            time.sleep(PERIOD_S)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), *map(float, sys.argv[3:]))
