"""Logs of one block or range → events with their block, their job, and the addresses that they name."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from msgspec.structs import asdict

from everlease.chain._generated.events import EVENTS, Event
from everlease.chain.base import Log
from everlease.chain.event_codec import decode_event
from everlease.domain.mirrored import MirroredBlock, MirroredEvent


def decode(logs: Iterable[Log], blocks: Mapping[int, MirroredBlock]) -> list[tuple[MirroredEvent, Event]]:
    """Events in chain order. A credit names no job: it gets that of the event before it in its transaction."""
    found: list[tuple[MirroredEvent, Event]] = []
    tx_hash, job_id, lease_id = "", None, None
    for log in logs:
        event = decode_event(log)
        if event is None:
            continue
        if log.tx_hash != tx_hash:
            tx_hash, job_id, lease_id = log.tx_hash, None, None
        shape = _SHAPES[type(event)]
        args = shape.arguments(event)
        if shape.has_job:
            job_id, lease_id = args["job_id"], args.get("lease_id")
        mirrored = MirroredEvent(
            log.block_number,
            log.log_index,
            log.block_hash,
            blocks[log.block_number].timestamp,
            log.tx_hash,
            log.address,
            shape.name,
            args,
            job_id if shape.belongs else None,
            lease_id if shape.belongs else None,
            tuple(dict.fromkeys([args[name] for name in shape.addresses])),
        )
        found.append((mirrored, event))
    return found


@dataclass(frozen=True, slots=True)
class _Shape:
    """What is known of an event's class before any event is seen. ``belongs``: it is of a job, named or not."""

    name: str
    enums: tuple[str, ...]
    addresses: tuple[str, ...]
    has_job: bool
    belongs: bool

    def arguments(self, event: Event) -> dict[str, Any]:
        """The event's fields by name, ready for JSON."""
        found = asdict(event)
        for name in self.enums:
            found[name] = found[name].name
        return found


def _shape_of(kind: type[Event]) -> _Shape:
    names = kind.__struct_fields__
    return _Shape(
        name=kind.__name__,
        enums=tuple(field.name for field in kind.FIELDS if field.enum is not None),
        addresses=tuple(field.name for field in kind.FIELDS if field.abi_type == "address"),
        has_job="job_id" in names,
        belongs="job_id" in names or kind.__name__ == "Credited",
    )


_SHAPES: dict[type[Any], _Shape] = {kind: _shape_of(kind) for kind in EVENTS.values()}


def touched(events: Sequence[MirroredEvent]) -> dict[str, set[str]]:
    """Keys of the derived rows that the reducers will want, by table; a superset, so that they are read in one go."""
    parties = {party for event in events for party in event.parties}
    return {
        "escrow": {event.job_id for event in events if event.job_id is not None},
        "lease": {event.lease_id for event in events if event.lease_id is not None},
        "provider": parties,
        "node_auth": parties,
        "claimable": parties,
    }


def payment_id(event: MirroredEvent) -> str:
    """Key of the payment that an event makes; sorts as the chain does."""
    return f"{event.block_number:012d}-{event.log_index:06d}"
