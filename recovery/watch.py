"""One look at the nodes that hold awards: who is silent, who is lost. No loop, no sleep, no clock of its own."""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import structlog

from everlease.db import Tx, awards, gateways, jobs, nodes, outages
from everlease.db.models.nodes import NodeRow
from everlease.domain.liveness import Liveness, LivenessPolicy, Sighting, liveness, restarts_count
from recovery.apply import Desk, lose

log = structlog.get_logger()

DEAF_AT_MOST_S = 30.0
"""How long total silence before a gateway that is up is taken for its network's rather than for all hosts' death."""


UNREPORTED_S, ABSENT_FOR_S = 5.0, 15.0
"""A started job that its connected node leaves out of its heartbeats is unreported, and absent once it has been so all
the while that we watched; its guard, if there is one, has frozen it long before."""


MIRROR_AGE_S = 120.0
"""No mirrored block for this long is an outage of the chain, of its endpoints or of the indexer."""


@dataclass(frozen=True, slots=True)
class Lost:
    """A node judged LOST: the awards it holds as (job, fence), when it was last heard, how it went."""

    node: str
    awards: tuple[tuple[str, int], ...]
    last_seen: datetime | None
    cause: str
    detect_s: float


@dataclass(frozen=True, slots=True)
class Absent:
    """A job that its connected node last mentioned at ``last_beat`` (unix seconds, as is ``now``)."""

    job_id: str
    fence: int
    last_beat: float
    now: float


def look(tx: Tx, now: float, watching_since: float, policy: LivenessPolicy) -> list[Lost]:
    """Judge every watched node; note SUSPECT once and probe; return those that are LOST.

    Silence counts only for as long as the monitor itself has been watching (``watching_since``): after one of its own
    pauses nobody is lost until they had the whole time again to be heard.
    """
    lost: list[Lost] = []
    for node in nodes.watched(tx):
        sighting = _sighting(node, watching_since, now, policy)
        verdict = liveness(sighting, now, policy)
        if verdict is Liveness.LOST:
            lost.append(_lost(tx, node, now))
        elif verdict is Liveness.SUSPECT:
            _suspect(tx, node, sighting, now)
    return lost


def unreported(tx: Tx, now: float) -> list[Absent]:
    """Jobs that connected nodes don't report: a host that was started anew, or an agent that is stuck."""
    rows = awards.unreported(tx, datetime.fromtimestamp(now - UNREPORTED_S, UTC))
    return [Absent(row.job_id, row.fence, _unix(row.last_beat_at or row.started_at) or now, now) for row in rows]


class Absences:
    """Since when each award is unreported without a break. A start may be noted late, and is reported only then."""

    def __init__(self) -> None:
        self._since: dict[tuple[str, int], float] = {}

    def note(self, found: Sequence[Absent], now: float) -> list[Absent]:
        """Note one look's findings; those that have been so for long enough."""
        self._since = {(it.job_id, it.fence): self._since.get((it.job_id, it.fence), now) for it in found}
        return [it for it in found if now - self._since[it.job_id, it.fence] >= ABSENT_FOR_S]


class Outages:
    """Notes when the gateway, the database or the chain's mirror was away: what went wrong then is no host's fault.

    A pause of the watch alone is no outage: the gateway writes down whom it hears without it. Nor is the silence of all
    nodes while a gateway is up: they may be one provider's.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._answered = monotonic()
        self.database_was_away = False
        """Whether the database did not answer us when we last asked."""

    def database_away(self) -> None:
        """The database did not answer: the next look says from when to when."""
        self.database_was_away = True

    def database_there(self) -> None:
        """It answered: we have looked, or somebody else does."""
        self.database_was_away = False
        self._answered = self._monotonic()

    def note(self, tx: Tx, now: float) -> None:
        """Note one look at ``now`` (unix seconds, the database's clock).

        The database was away since it last answered us, or since another replica last looked: one that was cut off
        alone saw no outage.
        """
        before = outages.look(tx, now)
        if self.database_was_away:
            since = now - (self._monotonic() - self._answered)
            outages.note(tx, "database", min(max(since, before or since), now), now)
        if not gateways.present(tx):
            outages.note(tx, "gateway", now, now)
        age = outages.mirror_age(tx, now)
        if age > MIRROR_AGE_S:
            outages.note(tx, "chain", now - age, now)


def declare_absent(desk: Desk, missing: Iterable[Absent]) -> int:
    """End the awards of jobs that are absent from their hosts; returns how many."""
    ended = 0
    for found in missing:
        log.warning("job.absent", job_id=found.job_id, fence=found.fence)
        detect_s = round(found.now - found.last_beat, 3)
        why = {"cause": "not on its host any more", "detect_s": detect_s, "last_seen": found.last_beat}
        ended += lose(desk, found.job_id, found.fence, why)
    return ended


def deaf(tx: Tx, now: float, policy: LivenessPolicy) -> bool:
    """Whether it is the gateway that is away and not the hosts: none is up, or none of several nodes is heard."""
    if not gateways.present(tx):
        return True
    count, last = nodes.heard(tx)
    silence = now - last.timestamp() if last is not None else 0.0
    return count >= 2 and policy.suspect_after <= silence < DEAF_AT_MOST_S


def excuse(tx: Tx, *, ours: bool = False) -> None:
    """While no gateway is up nobody can commit: what is served counts as saved. ``ours``: as much where the database
    was away until now.
    """
    if ours or not gateways.present(tx):
        excused = awards.count_all_as_saved(tx)
        if excused:
            log.warning("watch.excused", awards=excused)


def declare(desk: Desk, lost: Iterable[Lost]) -> int:
    """End every award of the lost nodes; returns how many. A node that was heard meanwhile keeps its own."""
    ended = 0
    for found in lost:
        with desk.database.transaction() as tx:
            if not nodes.mark_lost(tx, found.node, found.last_seen):
                continue
        log.warning("node.lost", node=found.node, awards=len(found.awards), cause=found.cause)
        why = {"cause": found.cause, "detect_s": found.detect_s, "last_seen": _unix(found.last_seen)}
        ended += sum(lose(desk, job_id, fence, why) for job_id, fence in found.awards)
    return ended


def _sighting(node: NodeRow, watching_since: float, now: float, policy: LivenessPolicy) -> Sighting:
    gone, probe = _unix(node.disconnected_at), _unix(node.probe_sent_at)
    return Sighting(
        # A node that lost its gateway has the whole time again to find another.
        last_seen=max(_unix(node.last_seen) or 0.0, _unix(node.severed_at) or 0.0, watching_since),
        disconnected_at=None if gone is None else max(gone, watching_since),
        probe_sent_at=probe if probe is not None and probe > watching_since else None,
        restarting_at=_unix(node.restarting_at) if restarts_count(node.restarts, now, policy) else None,
    )


def _suspect(tx: Tx, node: NodeRow, sighting: Sighting, now: float) -> None:
    silent = sighting.disconnected_at is None
    unprobed = sighting.probe_sent_at is None or sighting.probe_sent_at <= sighting.last_seen
    if node.liveness == Liveness.SUSPECT and not (silent and unprobed):
        return
    nodes.suspect(tx, node.address, datetime.fromtimestamp(now, UTC), probe=silent and unprobed)
    if node.liveness != Liveness.SUSPECT:
        for award in awards.held_by(tx, node.address):
            jobs.record(tx, award.job_id, "node.suspect", {"node": node.address, "fence": award.fence})


def _lost(tx: Tx, node: NodeRow, now: float) -> Lost:
    held = tuple((award.job_id, award.fence) for award in awards.held_by(tx, node.address))
    cause = "disconnected" if node.disconnected_at is not None else "silent"
    heard = _unix(node.last_seen)
    return Lost(node.address, held, node.last_seen, cause, round(now - heard, 3) if heard is not None else 0.0)


def _unix(at: datetime | None) -> float | None:
    return None if at is None else at.timestamp()
