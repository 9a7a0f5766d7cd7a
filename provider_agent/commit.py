"""What is stored and what is asked for when a checkpoint is committed: manifest and request, from facts alone."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from everlease.domain import compat
from everlease.domain.manifest import CID, Manifest
from everlease.store.pipeline import Snapshot, Source, scan
from provider_agent.host import Host
from provider_agent.records import JobRecord, PendingCheckpoint
from provider_agent.runtime.checkpoint import DumpResult


@dataclass(frozen=True)
class Committed:
    """A checkpoint that is the head of the job's chain now. Seconds and bytes."""

    manifest: CID
    seq: int
    mode: str
    pause_s: float
    total_s: float
    logical_bytes: int
    new_bytes: int
    held: bool

    def as_result(self) -> dict[str, Any]:
        """For a command's result or a notice."""
        return dict(self.__dict__)


@dataclass(frozen=True)
class Stored:
    """Blocks and manifest are in the store; the commit is still to be asked for."""

    cid: CID
    manifest: Manifest
    digest: str
    signature: str
    found: Snapshot


def manifest_of(
    host: Host, record: JobRecord, pending: PendingCheckpoint, dump: DumpResult, found: Snapshot, generation: int
) -> Manifest:
    """The manifest of a dump whose blocks are stored."""
    assert record.start is not None
    requirements = needs(host, record) if dump.mode == "process" else {}
    return Manifest(
        chain_id=host.chain_id,
        contract=host.escrow,
        job_id=record.job_id,
        seq=pending.seq,
        fence=record.fence,
        epoch=record.start.epoch,
        lease_id=record.start.lease_id,
        node=host.identity.key.address,
        mode="process" if dump.mode == "process" else "files",
        generation=generation,
        predecessor=CID(record.head) if record.head else None,
        created_at=round(host.clock.unix(), 3),
        entries=found.entries,
        requirements={
            **(requirements if dump.mode == "process" else {}),
            "image_config": record.start.spec["image_digest"],
        },
        stats={
            "logical_bytes": found.stats.logical_bytes,
            "new_bytes": found.stats.new_bytes,
            "pause_s": dump.pause_s,
        },
    )


def needs(host: Host, record: JobRecord) -> dict[str, str]:
    """What a process checkpoint of this job needs of the next host; of GPUs those that it holds."""
    held = [gpu for gpu in host.facts.get("gpus", []) if str(gpu["uuid"]) in record.gpus]
    return compat.needs_of({**host.facts, "gpus": held}, len(record.gpus))


def request_of(
    record: JobRecord, pending: PendingCheckpoint, stored: Stored, dump: DumpResult, total_s: float, taken_at: float
) -> dict[str, Any]:
    """The CommitCheckpoint message, still without its number."""
    manifest = stored.manifest
    return {
        "type": "commit_checkpoint",
        "request": pending.request,
        "job_id": record.job_id,
        "fence": record.fence,
        "checkpoint_seq": manifest.seq,
        "manifest": stored.cid,
        "predecessor": manifest.predecessor,
        "manifest_digest": stored.digest,
        "signature": stored.signature,
        "block_cids": sorted(manifest.cids()),
        "mode": manifest.mode,
        "generation": manifest.generation,
        "generations": sorted(manifest.generations()),
        "logical_bytes": stored.found.stats.logical_bytes,
        "new_bytes": stored.found.stats.new_bytes,
        "pause_s": dump.pause_s,
        "total_s": round(total_s, 3),
        "taken_at": round(taken_at, 3),
        "requirements": dict(manifest.requirements),
        "final": pending.final,
    }


def sources_of(folder: Path) -> list[Source]:
    """What of a dump goes into the store: all of it but the logs."""
    sources, _ = scan(folder)
    return [source for source in sources if source.path.split("/", 1)[0] in {"criu", "files", "dump.json"}]
