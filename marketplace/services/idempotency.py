"""Idempotency keys: a POST that spends may be repeated, and only its first effect and answer count."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from everlease.db import Tx, identity


@dataclass(frozen=True, slots=True)
class Kept:
    """An answer as it went out first: HTTP status and JSON body."""

    status: int
    body: dict[str, Any]


def once(tx: Tx, caller: str, key: str | None, request: str, action: Callable[[Tx], tuple[int, BaseModel]]) -> Kept:
    """Run ``action`` once per (caller, key) and keep its answer in the same transaction; without a key just run it.

    ``request`` is what the client asked, canonically; raises KeyReused where the key came with something else.
    """
    if key is None:
        status, answer = action(tx)
        return Kept(status, answer.model_dump(mode="json"))
    digest = hashlib.sha256(request.encode()).hexdigest()
    known = identity.recall(tx, caller, key, digest)
    if known is not None:
        return Kept(known.status, known.body)
    status, answer = action(tx)
    body = answer.model_dump(mode="json")
    identity.remember(tx, caller, key, digest, status, body)
    return Kept(status, body)
