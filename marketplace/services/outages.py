"""Our outages cost no host its pay: while the store is away nobody can commit, so what is served counts as saved, and
what fails then is no host's fault.
"""

import asyncio
import time

import structlog

from everlease.db import awards, outages
from everlease.db.engine import DatabaseUnavailable, Tx
from everlease.store.errors import StoreError
from everlease.supervision import Alive
from marketplace.parts import Parts

LOOK_EVERY_S, LONGEST_LOOK_S = 5.0, 120.0
_log = structlog.get_logger("marketplace.outages")


async def watch_store(parts: Parts, alive: Alive) -> None:
    """Look at the store every few seconds, until cancelled."""
    looked = time.monotonic()
    while True:
        alive()
        await asyncio.sleep(LOOK_EVERY_S)
        before, looked = looked, time.monotonic()
        try:
            await asyncio.to_thread(excuse_hosts, parts, before)
        except DatabaseUnavailable as error:
            _log.warning("the database is away", reason=str(error))


def excuse_hosts(parts: Parts, before: float) -> int:
    """Where the store doesn't answer, note the outage since the look ``before`` (monotonic seconds) and count what was
    served so far as saved; returns for how many awards.

    Raises DatabaseUnavailable.
    """
    try:
        parts.store.ping()
    except StoreError as error:
        with parts.db.transaction() as tx:
            _note(tx, before)
            excused = awards.count_all_as_saved(tx)
        if excused:
            _log.warning("the store is away: what is served counts as saved", awards=excused, reason=str(error))
        return excused
    return 0


def note_store(parts: Parts) -> None:
    """Note that the store is away, where it doesn't answer us either: what a host's request makes of it is no evidence.

    Raises DatabaseUnavailable.
    """
    asked = time.monotonic()
    try:
        parts.store.ping()
    except StoreError:
        with parts.db.transaction() as tx:
            _note(tx, asked)


def _note(tx: Tx, since: float) -> None:
    now = outages.clock(tx)
    outages.note(tx, "store", now - (time.monotonic() - since), now)
