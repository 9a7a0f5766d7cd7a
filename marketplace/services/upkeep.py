"""The store's upkeep: blocks that no checkpoint and no image needs are collected, damaged ones are dropped.

Recovery condemns checkpoints (retention); here their blocks become garbage. What is being uploaded is pinned by its
session, what was condemned a moment ago waits out the service's grace, so a collection never races a commit.
"""

import asyncio
from datetime import UTC, datetime, timedelta

import structlog

from everlease.db import retention
from everlease.db.engine import DatabaseUnavailable
from everlease.store.block_service import GcReport
from everlease.store.errors import BlockNotFound, ManifestInvalid, StoreError
from marketplace.parts import Parts

_IMAGE_KEPT = timedelta(days=1)
_log = structlog.get_logger("marketplace.upkeep")


async def keep_store(parts: Parts) -> None:
    """Collect and scrub at their intervals, until cancelled; a store or database that is away is tried again later."""
    scrubbed = parts.clock()
    while True:
        await asyncio.sleep(parts.settings.collect_every_s)
        try:
            report = await asyncio.to_thread(collect_garbage, parts)
            if report is not None:
                _log.info("garbage collected", live=report.live, deleted=report.deleted, freed=report.freed_bytes)
            if parts.clock() - scrubbed >= parts.settings.scrub_every_s:
                scrubbed = parts.clock()
                for cid in await asyncio.to_thread(parts.store.scrub):
                    _log.error("a damaged block was dropped", cid=cid)
        except (StoreError, DatabaseUnavailable) as error:
            _log.warning("upkeep of the store is put off", reason=str(error))


def collect_garbage(parts: Parts) -> GcReport | None:
    """One collection; None where another replica is at it. Raises StoreError before anything is deleted.

    The live set is complete or nothing is collected: a store that does not answer stops it. An image list that is gone
    or is none keeps nothing alive: tenants name it, and must not be able to stop the collection.
    """
    now = datetime.fromtimestamp(parts.clock(), UTC)
    with parts.db.transaction() as tx:
        if not retention.take_turn(tx):
            return None
        live = retention.checkpoint_blocks(tx)
        images = retention.images(tx, now - _IMAGE_KEPT)
    for image in sorted(images):
        try:
            live.update(parts.store.plain_blocks(image))
        except (BlockNotFound, ManifestInvalid) as error:
            _log.warning("a job's image can't be kept", image=image, reason=str(error))
    return parts.store.collect(live)
