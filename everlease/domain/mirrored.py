"""A chain event as the mirror keeps it, and the block it came in. Ids are 0x-hex, addresses lower case."""

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

    @property
    def payload(self) -> dict[str, Any]:
        """What the outbox says of it: which event of which job. Its arguments are in the mirror's own row."""
        return {
            "event": self.name,
            "job_id": self.job_id,
            "lease_id": self.lease_id,
            "block": self.block_number,
            "block_hash": self.block_hash,
            "tx": self.tx_hash,
            "log_index": self.log_index,
        }
