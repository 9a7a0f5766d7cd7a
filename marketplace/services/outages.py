"""Our outages cost no host its pay: while the store is away nobody can commit, so what is served counts as saved."""

import asyncio

import structlog

from everlease.db import awards
from everlease.db.engine import DatabaseUnavailable
from everlease.store.errors import StoreError
from everlease.supervision import Alive
from marketplace.parts import Parts

LOOK_EVERY_S, LONGEST_LOOK_S = 5.0, 120.0
_log = structlog.get_logger("marketplace.outages")


async def watch_store(parts: Parts, alive: Alive) -> None:
    """Look at the store every few seconds, until cancelled."""
    while True:
        alive()
        await asyncio.sleep(LOOK_EVERY_S)
        try:
            await asyncio.to_thread(excuse_hosts, parts)
        except DatabaseUnavailable as error:
            _log.warning("the database is away", reason=str(error))


def excuse_hosts(parts: Parts) -> int:
    """Where the store doesn't answer, count what was served so far as saved; returns for how many awards.

    Raises DatabaseUnavailable.
    """
    try:
        parts.store.ping()
    except StoreError as error:
        with parts.db.transaction() as tx:
            excused = awards.count_all_as_saved(tx)
        if excused:
            _log.warning("the store is away: what is served counts as saved", awards=excused, reason=str(error))
        return excused
    return 0
