"""A chain event as the mirror keeps it, and the block it came in. Ids are 0x-hex, addresses lower case."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple


@dataclass(frozen=True, slots=True)
class MirroredBlock:
    """A block that was applied; ``timestamp`` unix seconds."""

    number: int
    hash: str
    parent_hash: str
    timestamp: int


class MirroredEvent(NamedTuple):
    """``args`` are the event's fields by their Python names, ready for JSON; ``parties`` all addresses in them."""

    block_number: int
    log_index: int
    block_hash: str
    block_time: int
    tx_hash: str
    address: str
    name: str
    args: dict[str, Any]
    job_id: str | None
    lease_id: str | None
    parties: tuple[str, ...]


def by_job(events: Iterable[MirroredEvent]) -> list[dict[str, Any]]:
    """What the outbox says of events that came or went together: one message a job, however many they are.

    ``job_id`` (null: of no job), ``names`` of its events, their number, and the last one's block; the events are in the
    mirror's own rows.
    """
    found: dict[str | None, dict[str, Any]] = {}
    for event in events:
        told = found.get(event.job_id)
        if told is None:
            told = found[event.job_id] = {"job_id": event.job_id, "names": [], "events": 0}
        if event.name not in told["names"]:
            told["names"].append(event.name)
        told["events"] += 1
        told["block"], told["block_hash"] = event.block_number, event.block_hash
    return list(found.values())
