"""Three-valued liveness of a node, and the instant from which a replacement may start."""

from dataclasses import dataclass
from enum import StrEnum


class Liveness(StrEnum):
    ALIVE = "ALIVE"
    SUSPECT = "SUSPECT"
    LOST = "LOST"


@dataclass(frozen=True, slots=True)
class LivenessPolicy:
    """Seconds. ``fence_after`` is what nodes are told; the margins cover clock drift and a heartbeat in flight."""

    suspect_after: float = 2.5
    probe_timeout: float = 1.0
    reconnect_grace: float = 1.0
    fence_after: float = 4.0
    drift: float = 0.01
    margin: float = 1.0


@dataclass(frozen=True, slots=True)
class Sighting:
    """What the gateway knows of a node, in unix seconds of the marketplace's clock."""

    last_seen: float
    disconnected_at: float | None = None
    probe_sent_at: float | None = None


def liveness(sighting: Sighting, now: float, policy: LivenessPolicy) -> Liveness:
    """ALIVE while heartbeats come; SUSPECT once they stop or the socket closes; LOST after one unanswered probe."""
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
