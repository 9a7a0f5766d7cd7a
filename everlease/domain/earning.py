"""How many seconds of service a heartbeat adds, and how many of them are paid: the watcher's arithmetic about pay."""

from dataclasses import dataclass

SERVED_S = 60.0
"""A lease under which less was served cost its tenant a fee for nothing."""
PROVEN_S = 600.0
"""Seconds that a provider must have served jobs of other tenants, to committed checkpoints, to count as proven."""


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


@dataclass(frozen=True, slots=True)
class Service:
    """Cumulative seconds of one lease: served, ``saved`` by the last checkpoint, ``forfeited`` by restarts that a fault
    of the host led to. ``forfeited`` is a part of both others.
    """

    served: float
    saved: float
    forfeited: float = 0.0


def payable(service: Service, *, as_served: bool, in_full: bool) -> int:
    """Whole seconds that a receipt may show. ``as_served``: the order pays for work that is in no checkpoint, too.

    ``in_full``: the lease ends in order, so nothing that was served went with the host.
    """
    if as_served:
        return int(service.served)
    return int((service.served if in_full else service.saved) - service.forfeited)
