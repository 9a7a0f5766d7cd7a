"""Heartbeats: the node was seen, its current awards earn, stale fences are refused and counted."""

from dataclasses import dataclass

from everlease.db import Tx, awards, nodes, queries
from everlease.db.awards import Beat
from everlease.wire.node import Heartbeat
from marketplace.parts import Parts


@dataclass(frozen=True, slots=True)
class BeatOutcome:
    """``replaced``: a newer session of this node took over. ``jobs_left``: awards it still holds."""

    replaced: bool
    refused: tuple[str, ...] = ()
    jobs_left: int = 0


class _Replaced(Exception):
    """The session is not the node's newest; rolls the transaction back."""


def take_heartbeat(parts: Parts, node: str, session: str, message: Heartbeat) -> BeatOutcome:
    """Record one heartbeat in one transaction; raises DatabaseUnavailable, and then nothing is acknowledged."""
    beats = [Beat(line.job_id, line.fence, line.serving, line.loss_bound_s, line.storing) for line in message.jobs]
    try:
        with parts.metrics.beat_seconds.time(), parts.beats_db.transaction() as tx:
            # Awards are locked before the node, as recovery does when it ends one.
            refused = _credit(parts, tx, node, beats) if beats else ()
            if not nodes.seen(tx, node, session):
                raise _Replaced
            return BeatOutcome(False, refused, len(awards.held_by(tx, node)))
    except _Replaced:
        return BeatOutcome(replaced=True)


def _credit(parts: Parts, tx: Tx, node: str, beats: list[Beat]) -> tuple[str, ...]:
    refused: list[str] = []
    for line in awards.beat(tx, node, beats):
        if queries.is_preparing(tx, node, line.job_id, line.fence):
            continue
        refused.append(line.job_id)
        if awards.is_zombie(awards.of_node(tx, node, line.job_id, line.fence)):
            nodes.count_refusal(tx, line.job_id, node, line.fence, "heartbeat")
            parts.metrics.refused.labels("heartbeat").inc()
    return tuple(dict.fromkeys(refused))


def take_pong(parts: Parts, node: str, session: str) -> bool:
    """A probe was answered; False where a newer session took over."""
    with parts.beats_db.transaction() as tx:
        return nodes.seen(tx, node, session)
