"""The store's upkeep: blocks that no checkpoint and no image needs are collected, damaged ones are dropped.

Recovery condemns checkpoints (retention); here their blocks become garbage. What is being uploaded is pinned by its
session, what was condemned a moment ago waits out the service's grace, so a collection never races a commit. An image
is kept for its job once the job's escrow is funded; before that its upload's session and the posting of its order do.
"""

import asyncio
from collections.abc import Callable, Generator
from contextlib import closing
from datetime import UTC, datetime, timedelta

import structlog

from everlease.db import retention
from everlease.db.engine import DatabaseUnavailable
from everlease.store.block_service import GcReport
from everlease.store.cid import parse_cid
from everlease.store.errors import BlockCorrupt, BlockNotFound, InvalidCid, ManifestInvalid, StoreError
from everlease.supervision import Alive
from marketplace.parts import Parts

LONGEST_UPKEEP_S = 24 * 3600.0
"""A collection or a scrub that takes longer has stalled."""
_IMAGE_KEPT = timedelta(days=1)
_log = structlog.get_logger("marketplace.upkeep")


async def collect_regularly(parts: Parts, alive: Alive) -> None:
    """Collect garbage at its interval, until cancelled."""

    def collect() -> None:
        report = collect_garbage(parts)
        if report is not None:
            _log.info("garbage collected", live=report.live, deleted=report.deleted, freed=report.freed_bytes)

    await _every(parts.settings.collect_every_s, collect, alive)


async def scrub_regularly(parts: Parts, alive: Alive) -> None:
    """Scrub at its interval, until cancelled: whatever becomes of the collections."""

    def scrub() -> None:
        for cid in parts.store.scrub():
            _log.error("a damaged block was dropped", cid=cid)

    await _every(parts.settings.scrub_every_s, scrub, alive)


async def _every(seconds: float, work: Callable[[], None], alive: Alive) -> None:
    """A store or database that is away is tried again at the next time."""
    while True:
        alive()
        await asyncio.sleep(seconds)
        try:
            await asyncio.to_thread(work)
        except (StoreError, DatabaseUnavailable) as error:
            _log.warning("upkeep of the store is put off", work=work.__name__, reason=str(error))


def collect_garbage(parts: Parts) -> GcReport | None:
    """One collection; None where another replica is at it. Raises StoreError before anything is deleted.

    The live set is complete or nothing is collected: a store that does not answer stops it. What names no block, or an
    image list that is gone or is none, keeps nothing alive: tenants and hosts write these, and none of them must be
    able to stop the collection.
    """
    with retention.hold_turn(parts.db) as ours:
        if not ours:
            return None
        with closing(_live(parts)) as live:
            return parts.store.collect(live)


def _live(parts: Parts) -> Generator[str]:
    """Every block to keep, read as it is asked for."""
    now = datetime.fromtimestamp(parts.clock(), UTC)
    with parts.db.transaction() as tx:
        for name in retention.checkpoint_blocks(tx):
            try:
                yield parse_cid(name)
            except InvalidCid as error:
                _log.warning("a checkpoint names no block", reason=str(error))
    with parts.db.transaction() as tx:
        images = retention.images(tx, now - _IMAGE_KEPT)
    for image in images:
        try:
            plain = parts.store.plain(parse_cid(image))
        except (BlockNotFound, BlockCorrupt, ManifestInvalid, InvalidCid) as error:
            _log.warning("a job's image can't be kept", image=image, reason=str(error))
            continue
        yield image
        yield from (block for block, _ in plain.blocks)
