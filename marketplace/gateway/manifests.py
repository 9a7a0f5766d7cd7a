"""A commit against the manifest that it names: opened with the job's key, it must say what the commit says.

What a checkpoint consists of, how large it is and what it needs is read from the manifest and from the node's facts.
The commit's own word counts for none of it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from everlease.domain import compat
from everlease.domain.jobspec import JobSpec, largest_checkpoint
from everlease.domain.manifest import CID, Manifest
from everlease.store.errors import ManifestInvalid
from everlease.store.manifest import MAX_MANIFEST_BYTES, commitment, verify_manifest
from everlease.store.sealing import JobKeys
from everlease.wire.node import CommitCheckpoint
from marketplace.parts import Parts


@dataclass(frozen=True, slots=True)
class Place:
    """What the manifest must agree with: the award's terms, the job's spec, and the key that it is sealed with."""

    node: str
    epoch: int
    lease_id: str
    generation: int
    spec: JobSpec
    facts: Mapping[str, Any]
    key: bytes


def read(parts: Parts, place: Place, message: CommitCheckpoint) -> Manifest:
    """The manifest of a commit whose blocks are in the store. Raises StoreError where it is none or says otherwise."""
    deployment = parts.deployment
    keys = JobKeys(
        deployment.chain_id,
        deployment.escrow,
        message.job_id,
        place.generation,
        {place.generation: place.key},
        bytes(32),
    )
    cid = CID(message.manifest)
    payload = keys.open(cid, place.generation, parts.store.block(cid), MAX_MANIFEST_BYTES)
    manifest = verify_manifest(cid, payload).manifest
    if commitment(payload) != (message.manifest_digest, message.signature):
        raise ManifestInvalid("the signature is of another manifest than the one in the store")
    expected = {
        "chain_id": deployment.chain_id,
        "contract": deployment.escrow.lower(),
        "job_id": message.job_id,
        "seq": message.checkpoint_seq,
        "fence": message.fence,
        "epoch": place.epoch,
        "lease_id": place.lease_id,
        "node": place.node,
        "mode": message.mode,
        "generation": place.generation,
        "predecessor": message.predecessor,
    }
    for name, value in expected.items():
        found = getattr(manifest, name)
        if (found.lower() if isinstance(found, str) else found) != value:
            raise ManifestInvalid(f"the manifest's {name} is {found}, this commit's is {value}")
    if manifest.cids() != set(message.block_cids):
        raise ManifestInvalid("the commit lists other blocks than the manifest names")
    if manifest.generations() != set(message.generations):
        raise ManifestInvalid("the commit lists other key generations than the manifest names")
    most = largest_checkpoint(place.spec.resources)
    if manifest.logical_bytes > most:
        raise ManifestInvalid(f"the checkpoint has {manifest.logical_bytes} bytes, the order allows for {most}")
    return manifest


def needs(place: Place, manifest: Manifest) -> dict[str, Any]:
    """What the checkpoint needs of the next host, by the facts of the node that took it: empty for one of files.

    Of a node with several models of GPU the manifest says which the job held. Raises ManifestInvalid where the node's
    facts lack what is needed.
    """
    if manifest.mode != "process":
        return {}
    model = manifest.requirements.get("gpu_model")
    try:
        gpus = sorted(place.facts.get("gpus") or [], key=lambda gpu: bool(gpu.get("model") != model))
        return dict(compat.needs_of({**place.facts, "gpus": gpus}, place.spec.resources.gpus))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ManifestInvalid(f"the node's facts lack or garble {error}") from error
