"""Keyset cursors: opaque to clients, and the key of the last row to us."""

import base64
import binascii
import json
from typing import Annotated, Any

from fastapi import Query

from marketplace.problems import ProblemError

Limit = Annotated[int, Query(ge=1, le=200)]
CursorQuery = Annotated[str | None, Query(max_length=400)]


def encode_cursor(*key: Any) -> str:
    """A cursor that continues after the row with this key."""
    return base64.urlsafe_b64encode(json.dumps(key).encode()).decode().rstrip("=")


def decode_cursor(cursor: str, *kinds: type) -> list[Any]:
    """The key in a cursor; raises ProblemError (422) for what we didn't issue."""
    try:
        key = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (binascii.Error, ValueError) as error:
        raise _malformed() from error
    if not isinstance(key, list) or len(key) != len(kinds):
        raise _malformed()
    if not all(type(value) is kind for value, kind in zip(key, kinds, strict=True)):
        raise _malformed()
    if any(type(value) is str and not (value.isascii() and value.isprintable()) for value in key):
        raise _malformed()
    return key


def _malformed() -> ProblemError:
    return ProblemError(422, "malformed-cursor", "the cursor is not one of ours: take next_cursor from a page as it is")
