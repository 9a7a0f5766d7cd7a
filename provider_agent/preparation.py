"""Everything that can be done before a job may run here: image, sealed blocks, network; no key is needed."""

import asyncio
import logging
from collections.abc import Callable
from threading import Event
from typing import Any, NamedTuple

from everlease.domain.jobspec import JobSpec
from everlease.domain.manifest import CID
from everlease.store.errors import BlockCorrupt, BlockNotFound
from everlease.wire.commands import Prepare
from provider_agent import terms
from provider_agent.errors import StepFailed
from provider_agent.host import Host, disk_needed
from provider_agent.images import ensure_image
from provider_agent.records import JobRecord
from provider_agent.runtime import network

log = logging.getLogger(__name__)
_BATCH = 256


class _Fetched(NamedTuple):
    """Bytes of the image, when it was there (CLOCK_BOOTTIME), number of blocks; what was here before counts as none."""

    image_bytes: int
    imaged_at: float
    blocks: int


def check(host: Host, command: Prepare) -> JobSpec:
    """The spec, if it is the one this node bid on and fits its disk. Raises StepFailed."""
    spec = terms.agreed_spec(host.journal, command.job_id, command.spec)
    terms.check_restorable(host, command.checkpoint_requirements)
    room = host.free_disk() - disk_needed(spec, 2 * command.image_archive_bytes)
    if room < 0:
        raise StepFailed(f"this host lacks {-room} bytes of disk for the job", retryable=True)
    return spec


async def prepare(host: Host, command: Prepare, token: Callable[[], str], cancel: Event) -> dict[str, Any]:
    """Journal the job as preparing, fetch, make the network; data for the result. Repeated, it fetches what is missing.

    Raises StepFailed, StoreError, RuntimeFault.
    """
    spec = check(host, command)
    record = JobRecord(
        job_id=command.job_id,
        fence=command.fence,
        phase="preparing",
        prepare=command.model_copy(update={"block_cids": []}),
        gpus=terms.free_gpus(host, command.job_id, spec.resources.gpus),
    )
    host.journal.put_job(record)
    host.crash.reach("prepare.accepted")
    began = host.clock.boottime()
    fetched = await asyncio.to_thread(_fetch, host, command, spec, token, cancel)
    host.crash.reach("prepare.blocks")
    await asyncio.to_thread(network.create_network, host.engine.client, command.job_id)
    host.journal.put_job(record.model_copy(update={"phase": "prepared"}))
    host.crash.reach("prepare.done")
    return {
        "image_bytes": fetched.image_bytes,
        "image_s": round(fetched.imaged_at - began, 3),
        "blocks": fetched.blocks,
        "blocks_s": round(host.clock.boottime() - fetched.imaged_at, 3),
    }


def _fetch(host: Host, command: Prepare, spec: JobSpec, token: Callable[[], str], cancel: Event) -> _Fetched:
    """Image first, then the sealed blocks of the checkpoint into this host's cache. In a thread."""
    plain, sealed = host.store(token), host.cached(token)
    try:
        image = ensure_image(host, command, spec, plain, cancel)
        imaged = host.clock.boottime()
        host.crash.reach("prepare.image")
        wanted = [CID(cid) for cid in (command.checkpoint, *command.block_cids) if cid is not None]
        fetched = 0
        for place in range(0, len(wanted), _BATCH):
            if cancel.is_set():
                raise StepFailed("the preparation was cancelled")
            try:
                fetched += sealed.prefetch(wanted[place : place + _BATCH])
            except (BlockCorrupt, BlockNotFound) as error:
                # Only a restore judges a checkpoint: it names the block, and the one before is used.
                log.warning("job %s: a block of its checkpoint is damaged: %s", command.job_id[:10], error)
                break
        sealed.trim(host.settings.cache_bytes)
        return _Fetched(image, imaged, fetched)
    finally:
        sealed.close()
        plain.close()
