"""How often to checkpoint: Daly's optimum, held below the tenant's bound on lost work."""

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CheckpointCost:
    """Measured on this node for this job, in seconds: frozen time, and time until the manifest was committed."""

    pause: float
    upload: float


def daly_optimum(pause: float, mtbf: float) -> float:
    """Seconds of work between checkpoints that minimise expected run time.

    Source: J. T. Daly, "A higher order estimate of the optimum checkpoint interval for restart dumps", FGCS 22 (2006),
    eq. 37: sqrt(2δM)·[1 + ⅓·sqrt(δ/2M) + ⅑·(δ/2M)] − δ for δ < 2M, else M.
    """
    if pause <= 0:
        return 0.0
    if pause >= 2 * mtbf:
        return mtbf
    ratio = pause / (2 * mtbf)
    return math.sqrt(2 * pause * mtbf) * (1 + math.sqrt(ratio) / 3 + ratio / 9) - pause


def checkpoint_interval(cost: CheckpointCost, mtbf: float, max_lost_work: float, min_interval: float) -> float:
    """Seconds from the end of one checkpoint's pause to the start of the next.

    Never so long that interval + pause + upload exceeds ``max_lost_work``; ``min_interval`` gives way to that bound.
    """
    longest = max(max_lost_work - cost.pause - cost.upload, 0.0)
    return min(max(daly_optimum(cost.pause, mtbf), min_interval), longest)


def shortest_cycle(max_lost_work: float, min_interval: float) -> float:
    """Seconds from one checkpoint's beginning to the next one's: no host that goes by ``checkpoint_interval``, and has
    one in flight at a time, is faster, whatever a checkpoint costs it.
    """
    return min(min_interval, max_lost_work / 2)


def loss_bound(cost: CheckpointCost, interval: float) -> float:
    """The most work, in seconds, that a loss of the host right now can cost."""
    return interval + cost.pause + cost.upload
