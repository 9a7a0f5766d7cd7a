"""A checkpoint from the store onto this host's disk: every block verified before CRIU may see a byte of it."""

import json
import re
import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event

from everlease.domain.jobspec import JobSpec
from everlease.domain.manifest import CID, Manifest
from everlease.store.errors import BlockCorrupt, BlockNotFound, KeyMissing, ManifestInvalid, StoreFull
from everlease.store.manifest import SignedManifest, read_manifest
from everlease.store.pipeline import restore, save_known
from everlease.store.sealing import JobKeys
from everlease.store.wrappers import CachingStore
from everlease.wire.commands import Start
from provider_agent.errors import StepFailed
from provider_agent.host import Host
from provider_agent.runtime.everlease_runc import replace_file

_BATCH = 256
_SLACK_BYTES = 1 << 30
_MAX_RECORD_BYTES = 64 * 1024
_PLACES = re.compile(r"dump\.json|criu|criu/[^/]+|files|files/[^/]+\.tar")


@dataclass(frozen=True)
class Fetched:
    """A verified checkpoint on disk, for runtime.restore.prepare. Seconds: fetching blocks, verifying and writing."""

    dump: Path
    manifest: Manifest
    fetch_s: float
    verify_s: float


def fetch_checkpoint(
    host: Host, start: Start, checkpoint: CID, spec: JobSpec, keys: JobKeys, store: CachingStore, cancel: Event
) -> Fetched:
    """Fetch, verify and write a checkpoint below the job's folder. Blocks: call it from a thread.

    Raises StepFailed naming the block in ``data["damaged"]`` where the store's copy can't be trusted, and one worth
    another try where this host's disk is full; StoreError.
    """
    target = host.folders.job(start.job_id) / f"restore-{start.fence}"
    shutil.rmtree(target, ignore_errors=True)
    try:
        began = time.monotonic()
        manifest = _check(read_manifest(store, checkpoint, keys), start)
        if start.mode == "files":
            manifest = files_alone(manifest)
        wanted = sorted(manifest.cids())
        for place in range(0, len(wanted), _BATCH):
            if cancel.is_set():
                raise StepFailed("the restore was cancelled")
            store.prefetch(wanted[place : place + _BATCH])
        fetched = time.monotonic()
        limit = spec.resources.memory_bytes + 2 * spec.resources.disk_bytes + _SLACK_BYTES
        restored = restore(manifest, store, keys, target, max_bytes=limit, cancel=cancel)
        save_known(host.folders.known(start.job_id), restored.known)
        if start.mode == "files":
            _mark_files(target)
    except (BlockCorrupt, BlockNotFound) as error:
        raise StepFailed(str(error), data={"damaged": error.cid}) from error
    except (ManifestInvalid, KeyMissing) as error:
        raise StepFailed(str(error), data={"damaged": checkpoint}) from error
    except StoreFull as error:
        raise StepFailed("this host's disk is full: the restore was undone", retryable=True) from error
    return Fetched(target, manifest, fetched - began, time.monotonic() - fetched)


def files_alone(manifest: Manifest) -> Manifest:
    """The part of a checkpoint that works on unlike hardware: /checkpoint and the dump's record."""
    kept = {"files", "files/checkpoint.tar", "dump.json"}
    return replace(manifest, entries=tuple(entry for entry in manifest.entries if entry.path in kept))


def _mark_files(dump: Path) -> None:
    """Let the runtime start the job afresh over its files instead of looking for CRIU's images."""
    record = json.loads((dump / "dump.json").read_text(encoding="utf-8"))
    replace_file(str(dump / "dump.json"), json.dumps(record | {"mode": "files"}))


def _check(signed: SignedManifest, start: Start) -> Manifest:
    """The manifest must be the one this award names: signed by the node that committed it, and not of a later award."""
    manifest = signed.manifest
    if start.checkpoint_node is None or signed.signer.lower() != start.checkpoint_node:
        raise ManifestInvalid(f"the checkpoint is signed by {signed.signer}, {start.checkpoint_node} committed it")
    if manifest.seq != start.checkpoint_seq:
        raise ManifestInvalid(f"the checkpoint is number {manifest.seq}, the award names {start.checkpoint_seq}")
    if manifest.fence > start.fence:
        raise ManifestInvalid(f"the checkpoint was taken under fence {manifest.fence}, this award is {start.fence}")
    check_shape(manifest)
    return manifest


def check_shape(manifest: Manifest) -> None:
    """A dump is plain files at known places: a link would have us read other files of this host, or another job's.

    Raises ManifestInvalid.
    """
    for entry in manifest.entries:
        wanted = "directory" if entry.path in ("criu", "files") else "file"
        if not _PLACES.fullmatch(entry.path) or entry.kind != wanted:
            raise ManifestInvalid(f"the checkpoint has a {entry.kind} {entry.path[:80]!r}, which no dump has")
        if entry.path == "dump.json" and entry.size > _MAX_RECORD_BYTES:
            raise ManifestInvalid(f"the dump's record has {entry.size} bytes")
