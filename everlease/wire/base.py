"""Field types and the strict base of every message: unknown fields are refused, sizes are bounded."""

import json
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

Hex32 = Annotated[str, Field(pattern=r"^0x[0-9a-f]{64}$")]
Address = Annotated[str, Field(pattern=r"^0x[0-9a-fA-F]{40}$"), AfterValidator(str.lower)]
"""Lower case once it is in: rows, events and keys are compared as text."""
Signature = Annotated[str, Field(pattern=r"^0x[0-9a-f]{2,4096}$")]
Cid = Annotated[str, Field(pattern=r"^bafkrei[a-h][a-z2-7]{50}[aeimquy4]$")]
"""A CIDv1 of a raw sha2-256 block as everlease.store.cid reads it, and no other text."""
Units = Annotated[int, Field(ge=0, lt=2**128)]
"""Base units of the settlement asset; on HTTP a JSON integer."""
UnixSeconds = Annotated[int, Field(ge=0, lt=2**40)]
Short = Annotated[str, Field(max_length=200)]
Sentence = Annotated[str, Field(max_length=2000)]


Count = Annotated[int, Field(ge=0, lt=2**63)]
"""A number that fits PostgreSQL's bigint."""
MAX_OPEN_BYTES = 64 * 1024


def _bounded(value: dict[str, Any]) -> dict[str, Any]:
    """Small, and without the numbers that a reader or PostgreSQL trips over: huge ones, NaN, infinities.

    What is far too large is refused after a look at as much of it as would be allowed.
    """
    waiting: list[Any] = [value]
    at_least = 0
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            at_least += 2 * len(item)
            waiting.extend(item.values())
        elif isinstance(item, list):
            at_least += 2 * len(item)
            waiting.extend(item)
        elif isinstance(item, str):
            at_least += len(item)
        elif isinstance(item, int | float) and abs(item) >= 2**63:
            raise ValueError("a number is out of range")
        if at_least > MAX_OPEN_BYTES:
            break
    if at_least > MAX_OPEN_BYTES or len(json.dumps(value, allow_nan=False)) > MAX_OPEN_BYTES:
        raise ValueError(f"an open object has at most {MAX_OPEN_BYTES} bytes")
    return value


Open = Annotated[dict[str, Any], AfterValidator(_bounded)]
"""An object whose fields its sender chooses: facts, results, requirements."""


class Message(BaseModel):
    """Frozen, strict about names, never larger than its fields allow."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
