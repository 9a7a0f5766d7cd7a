"""Three-valued liveness of a node, and the instant from which a replacement may start."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

DAY_S = 86_400.0


class Liveness(StrEnum):
    ALIVE = "ALIVE"
    SUSPECT = "SUSPECT"
    LOST = "LOST"


@dataclass(frozen=True, slots=True)
class LivenessPolicy:
    """Seconds. ``fence_after`` is what nodes are told; the margins cover clock drift and a heartbeat in flight.

    ``restart_grace``: how long after its word that it restarts a node is not LOST, ``max_restarts_a_day`` times.
    """

    suspect_after: float = 2.5
    probe_timeout: float = 1.0
    reconnect_grace: float = 1.0
    restart_grace: float = 30.0
    max_restarts_a_day: int = 5
    fence_after: float = 4.0
    drift: float = 0.01
    margin: float = 1.0


@dataclass(frozen=True, slots=True)
class Sighting:
    """What the gateway knows of a node, in unix seconds of the marketplace's clock.

    ``restarting_at``: when it said in its last session that it restarts, where that counts.
    """

    last_seen: float
    disconnected_at: float | None = None
    probe_sent_at: float | None = None
    restarting_at: float | None = None


def liveness(sighting: Sighting, now: float, policy: LivenessPolicy) -> Liveness:
    """ALIVE while heartbeats come; SUSPECT once they stop or the socket closes; LOST after one unanswered probe.

    A node that restarts is LOST ``restart_grace`` after it said so at the earliest, however it fell silent.
    """
    verdict = _unannounced(sighting, now, policy)
    if sighting.restarting_at is not None and now < sighting.restarting_at + policy.restart_grace:
        return Liveness.SUSPECT if verdict is Liveness.LOST else verdict
    return verdict


def restarts_count(said_at: Sequence[float], now: float, policy: LivenessPolicy) -> bool:
    """Whether a node's word that it restarts counts: it has not been given too often within a day."""
    return sum(1 for at in said_at if at > now - DAY_S) <= policy.max_restarts_a_day


def _unannounced(sighting: Sighting, now: float, policy: LivenessPolicy) -> Liveness:
    if sighting.disconnected_at is not None:
        waited = now - sighting.disconnected_at
        return Liveness.LOST if waited >= policy.reconnect_grace else Liveness.SUSPECT
    if now - sighting.last_seen < policy.suspect_after:
        return Liveness.ALIVE
    probe = sighting.probe_sent_at
    if probe is not None and probe > sighting.last_seen and now - probe >= policy.probe_timeout:
        return Liveness.LOST
    return Liveness.SUSPECT


def fenced_at(last_seen: float, policy: LivenessPolicy) -> float:
    """Unix seconds after which a silent node's guard has frozen its containers for certain.

    The node counts ``fence_after`` from when it sent the last acknowledged heartbeat; we count from when we received
    it, which is later, and add drift and a margin.
    """
    return last_seen + policy.fence_after * (1 + policy.drift) + policy.margin


PRIOR_UPTIME_S = 24 * 3600
"""What an unknown node is believed to last: one loss in this time, as if it had been seen."""


def mean_time_between_losses(served_s: float, losses: int) -> float:
    """Seconds; the posterior mean of a Poisson rate under a Gamma(1, PRIOR_UPTIME_S) prior, inverted."""
    return (max(served_s, 0.0) + PRIOR_UPTIME_S) / (max(losses, 0) + 1)
