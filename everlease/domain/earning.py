"""How many seconds of service a heartbeat adds, and how many of them are paid: the watcher's arithmetic about pay."""

from dataclasses import dataclass

UNSAVED_MARGIN_S = 60.0
"""How much longer than the order's ``max_lost_work`` work may be that is in no checkpoint and yet paid: a checkpoint
that failed is tried again, and its commit takes its time.
"""
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


def payable(service: Service, *, as_served: bool, in_full: bool, max_lost_work: float) -> int:
    """Whole seconds that a receipt may show. ``as_served``: the order pays for work that is in no checkpoint, too.

    ``in_full``: the lease ends in order, so work since the last checkpoint is paid: no more of it than the order lets
    a host leave unsaved, its ``max_lost_work`` in seconds and `UNSAVED_MARGIN_S`. Who saves nothing is paid that alone.
    """
    if as_served:
        return int(service.served)
    unsaved = max_lost_work + UNSAVED_MARGIN_S if in_full else 0.0
    return int(min(service.served, service.saved + unsaved) - service.forfeited)
