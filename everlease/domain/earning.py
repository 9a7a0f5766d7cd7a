"""How many seconds of service a heartbeat adds: the watcher's only arithmetic about pay."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Accrual:
    """Cumulative service of one lease; ``seen_at`` is the last heartbeat that counted, in unix seconds."""

    earned: float
    seen_at: float


def accrue(accrual: Accrual, heartbeat_at: float, serving: bool, max_silence: float) -> Accrual:
    """Add the time since the last heartbeat if the workload was being served all along.

    A gap longer than ``max_silence`` earns nothing: nobody is billed for a dead host. Late or repeated heartbeats
    (``heartbeat_at`` not after ``seen_at``) change nothing.
    """
    gap = heartbeat_at - accrual.seen_at
    if gap <= 0:
        return accrual
    counted = gap if serving and gap <= max_silence else 0.0
    return Accrual(earned=accrual.earned + counted, seen_at=heartbeat_at)
