"""Logs of one block or range → events with their block, their job, and the addresses that they name."""

from collections.abc import Iterable, Sequence
from dataclasses import fields
from typing import Any

from everlease.chain._generated.events import Event
from everlease.chain.abi import decode_event
from everlease.chain.base import Log
from everlease.domain.mirrored import MirroredBlock, MirroredEvent

_PAYING = frozenset(
    {"JobFunded", "JobToppedUp", "LeaseCollected", "LeaseCleared", "LeaseFailed", "Credited", "Withdrawn"}
)


def decode(logs: Sequence[Log], blocks: dict[int, MirroredBlock]) -> list[tuple[MirroredEvent, Event]]:
    """Events in chain order. A credit names no job: it gets that of the event before it in its transaction."""
    found: list[tuple[MirroredEvent, Event]] = []
    tx_hash, job_id, lease_id = "", None, None
    for log in logs:
        event = decode_event(log)
        if event is None:
            continue
        if log.tx_hash != tx_hash:
            tx_hash, job_id, lease_id = log.tx_hash, None, None
        args = {field.name: _plain(getattr(event, field.name)) for field in fields(event)}
        if "job_id" in args:
            job_id, lease_id = args["job_id"], args.get("lease_id")
        belongs = "job_id" in args or type(event).__name__ == "Credited"
        mirrored = MirroredEvent(
            block_number=log.block_number,
            log_index=log.log_index,
            block_hash=log.block_hash,
            block_time=blocks[log.block_number].timestamp,
            tx_hash=log.tx_hash,
            address=log.address,
            name=type(event).__name__,
            args=args,
            job_id=job_id if belongs else None,
            lease_id=lease_id if belongs else None,
            parties=_parties(event),
        )
        found.append((mirrored, event))
    return found


def touched(events: Iterable[MirroredEvent]) -> dict[str, set[str]]:
    """Keys of the derived rows that the reducers will want, by table; a superset, so that they are read in one go."""
    found: dict[str, set[str]] = {
        name: set() for name in ("lease", "escrow", "provider", "node_auth", "claimable", "slash", "payment")
    }
    for event in events:
        if event.job_id is not None:
            found["escrow"].add(event.job_id)
        if event.lease_id is not None:
            found["lease"].add(event.lease_id)
        if event.name == "LeaseFailed" and event.lease_id is not None:
            found["slash"].add(event.lease_id)
        if event.name in _PAYING:
            found["payment"].add(payment_id(event))
        for table in ("provider", "node_auth", "claimable"):
            found[table].update(event.parties)
    return found


def payment_id(event: MirroredEvent) -> str:
    """Key of the payment that an event makes; sorts as the chain does."""
    return f"{event.block_number:012d}-{event.log_index:06d}"


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return "0x" + value.hex()
    if isinstance(value, int) and hasattr(value, "name"):
        return value.name
    return value


def _parties(event: Event) -> tuple[str, ...]:
    named = (getattr(event, field.name) for field in event.FIELDS if field.abi_type == "address")
    return tuple(dict.fromkeys(named))
