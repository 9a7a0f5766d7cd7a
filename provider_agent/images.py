"""The job's image on this host: there already, or fetched as plain blocks, checked by its digest, and loaded."""

import logging
from pathlib import Path
from threading import Event

from everlease.domain.jobspec import JobSpec
from everlease.domain.manifest import CID
from everlease.image_archive import ArchiveRefused, read_archive
from everlease.store.base import BlockStore
from everlease.store.plain import fetch_plain, read_plain
from everlease.wire.commands import Prepare
from provider_agent.errors import StepFailed
from provider_agent.host import Host

log = logging.getLogger(__name__)


def ensure_image(host: Host, command: Prepare, spec: JobSpec, store: BlockStore, cancel: Event) -> int:
    """Make sure that Docker has the image whose config digest is the spec's; the bytes fetched. Blocks: call it from
    a thread.

    Raises StepFailed, StoreError, RuntimeFault.
    """
    if host.engine.images.find(spec.image_digest) is not None:
        return 0
    if command.image_manifest is None:
        raise StepFailed(f"the image {spec.image} is not on this host and the order names no archive of it")
    archive = host.folders.images / f"{command.image_manifest}.tar"
    plain = read_plain(store, CID(command.image_manifest))
    if plain.size > host.free_disk():
        raise StepFailed(f"the image takes {plain.size} bytes, more than this host has free", retryable=True)
    try:
        fetch_plain(store, plain, archive, max_bytes=plain.size, cancel=cancel)
        found = read_archive(archive)
        if found.digest != spec.image_digest:
            raise StepFailed(f"the archive of {spec.image} holds {found.digest} instead of {spec.image_digest}")
        host.engine.images.load(found)
    except ArchiveRefused as error:
        raise StepFailed(f"the archive of {spec.image} is refused: {error}") from error
    finally:
        archive.unlink(missing_ok=True)
    log.info("loaded image %s (%d bytes)", spec.image, plain.size)
    return plain.size


def sweep_archives(folder: Path) -> None:
    """Remove what a killed agent left half-fetched."""
    for path in folder.glob("*"):
        path.unlink(missing_ok=True)
    for path in folder.glob(".*.part"):
        path.unlink(missing_ok=True)
