"""Checkpoint commits: signature, blocks, manifest, then the fenced move of the job's head. Answers can be repeated."""

from datetime import UTC, datetime

from everlease.db import Tx, awards, checkpoints, commands, jobs, keys, nodes
from everlease.db.models.jobs import AwardRow, CheckpointRow, JobRow
from everlease.db.outbox import emit
from everlease.domain import jobspec
from everlease.domain.interval import shortest_cycle
from everlease.domain.jobspec import JobSpec
from everlease.domain.manifest import Manifest
from everlease.store.errors import InvalidCid, ManifestInvalid, StoreError, StoreUnavailable
from everlease.store.manifest import committed_by
from everlease.wire.node import CommitAnswer, CommitCheckpoint
from marketplace.gateway import manifests
from marketplace.gateway.manifests import Place
from marketplace.parts import Parts
from marketplace.services import outages
from marketplace.services.keys import KeyUnavailable

_PACES, _SPARE, _FINALS = 16, 4, 8
"""Of ``_PACES`` of the order's intervals, so many commits more than that are fair: clocks step, uploads bunch them up,
and a host that leaves takes a last one. ``_FINALS``: with outputs, under one award.
"""
_LEAST_PACE_S = 1.0


class CommitRefused(Exception):
    """A commit that is not made. ``fenced``: somebody else holds the job now; ``ours``: our store or a key is away."""

    retryable = False

    def __init__(self, reason: str, *, fenced: bool = False, ours: bool = False) -> None:
        super().__init__(reason)
        self.fenced, self.ours = fenced, ours


def take_commit(parts: Parts, node: str, message: CommitCheckpoint) -> CommitAnswer:
    """Make the checkpoint the job's head if the node may; raises DatabaseUnavailable and nothing else."""
    head = None
    try:
        _check_signature(node, message)
        _check_shape(message)
        with parts.db.transaction() as tx:
            job = _check_fence(tx, node, message)
            head = job.head_manifest
            if _is_repeat(tx, message):
                return _answer(message, head)
            place = _check_place(parts, tx, job, message)
        _check_blocks(parts, node, message)
        manifest = _check_manifest(parts, place, message)
        with parts.db.transaction() as tx:
            _advance(tx, place, message, manifest)
        parts.metrics.commits.labels("committed").inc()
        return _answer(message, message.manifest)
    except CommitRefused as error:
        if error.fenced:
            _count(parts, node, message)
        if error.ours:
            _excuse(parts, node, message)
        parts.metrics.commits.labels("fenced" if error.fenced else "refused").inc()
        return _answer(message, head, str(error), fenced=error.fenced)


def _answer(message: CommitCheckpoint, head: str | None, error: str = "", *, fenced: bool = False) -> CommitAnswer:
    return CommitAnswer(seq=0, request=message.request, ok=not error, error=error, head=head, fenced=fenced)


def _check_signature(node: str, message: CommitCheckpoint) -> None:
    try:
        signer = committed_by(message.manifest_digest, message.signature).lower()
    except ManifestInvalid as error:
        raise CommitRefused(str(error)) from error
    if signer != node:
        raise CommitRefused(f"the manifest is signed by {signer}, not by this node")


def _check_shape(message: CommitCheckpoint) -> None:
    try:
        datetime.fromtimestamp(message.taken_at, UTC)
    except (ValueError, OverflowError, OSError) as error:
        raise CommitRefused("taken_at is not a time") from error


def _check_fence(tx: Tx, node: str, message: CommitCheckpoint) -> JobRow:
    try:
        job = jobs.get(tx, message.job_id)
    except jobs.UnknownJob as error:
        raise CommitRefused(str(error)) from error
    award = awards.under_fence(tx, message.job_id, message.fence)
    if award is None or award.node != node:
        raise CommitRefused(f"this node was never awarded the job under fence {message.fence}")
    if job.fence != message.fence or award.ended_at is not None:
        raise CommitRefused(f"fence {message.fence} is stale, {job.fence} is current", fenced=True)
    return job


def _is_repeat(tx: Tx, message: CommitCheckpoint) -> bool:
    """Whether this very commit was made before; a manifest of another job or place is refused."""
    known = checkpoints.by_manifest(tx, message.manifest)
    if known is None:
        return False
    if (known.job_id, known.depth, known.fence) != (message.job_id, message.checkpoint_seq, message.fence):
        raise CommitRefused("this manifest was committed before, as another checkpoint")
    return True


def _check_place(parts: Parts, tx: Tx, job: JobRow, message: CommitCheckpoint) -> Place:
    """Whether this award may add this checkpoint to the chain now; what the manifest must agree with."""
    award = awards.under_fence(tx, message.job_id, message.fence)
    assert award is not None
    if not _began(tx, award):
        raise CommitRefused("the job has not started under this award: there is nothing to checkpoint")
    head = checkpoints.by_manifest(tx, job.head_manifest) if job.head_manifest else None
    depth = head.depth if head is not None else 0
    if (message.checkpoint_seq, message.predecessor) != (depth + 1, job.head_manifest):
        raise CommitRefused(
            f"the checkpoint follows {message.predecessor} as number {message.checkpoint_seq}, "
            f"the head is {job.head_manifest}, number {depth}"
        )
    spec = jobspec.from_dict(job.spec)
    if not message.final:
        if head is not None and head.final and head.fence == message.fence:
            raise CommitRefused("the outputs were committed under this award: no checkpoint follows them")
        _check_mode(tx, job, award, spec, message.mode)
    _check_pace(tx, job, spec, message)
    if message.generation != award.generation:
        raise CommitRefused(f"generation {message.generation} is not this award's")
    known = keys.wrapped_keys(tx, message.job_id, message.generations)
    if set(message.generations) - set(known) or 0 in message.generations:
        raise CommitRefused("the checkpoint names key generations that this job doesn't have")
    row = nodes.get(tx, award.node)
    try:
        key = parts.keys.plain(tx, message.job_id, award.generation)
    except KeyUnavailable as error:
        raise CommitRefused(str(error), ours=True) from error
    facts = row.facts if row is not None else {}
    return Place(award.node, award.epoch, award.lease_id, award.generation, spec, facts, key)


def _began(tx: Tx, award: AwardRow) -> bool:
    """Whether its node said that the workload runs; recovery may not have noted that yet."""
    told = commands.find(tx, award.node, award.job_id, f"start/{award.fence}")
    return award.started_at is not None or (told is not None and bool(told.ok))


def _check_mode(tx: Tx, job: JobRow, award: AwardRow, spec: JobSpec, mode: str) -> None:
    """A checkpoint is of its award's mode. One of files is taken from a host that told that it can't dump the
    processes, where the order allows that and no checkpoint of processes would give way to it.
    """
    fallen = bool(award.facts.get("undumpable")) and spec.checkpoint.fall_back_to_files
    if fallen:
        # Outputs are of files always and say nothing of the program's own checkpoints.
        program = checkpoints.newest_program(tx, job.id)
        fallen = program is None or program.mode == "files"
    if mode != award.mode and not (mode == "files" and fallen):
        raise CommitRefused(f"the checkpoint is of mode {mode}, the award is for {award.mode}")


def _check_pace(tx: Tx, job: JobRow, spec: JobSpec, message: CommitCheckpoint) -> None:
    """A host commits no faster than its order's ``min_interval``, but for what it was asked for. The agent takes a
    refusal for a checkpoint that failed, and the job runs on.
    """
    pace = max(shortest_cycle(spec.checkpoint.max_lost_work_s, spec.checkpoint.min_interval_s), _LEAST_PACE_S)
    window = _PACES * pace
    asked = commands.asked_within(tx, job.id, message.fence, "checkpoint", window)
    fair = _PACES + _SPARE + asked
    if message.final and checkpoints.finals(tx, job.id, message.fence) >= _FINALS:
        raise CommitRefused(f"{_FINALS} final checkpoints were committed under this award: no more are taken")
    ages = checkpoints.newest_ages(tx, job, message.fence, fair + _FINALS)
    if not message.final and sum(age < window for age in ages) >= fair:
        raise CommitRefused(
            f"{fair} checkpoints were committed within {window:.0f} s: the order asks for one in {pace:.0f} s at most"
        )


def _check_blocks(parts: Parts, node: str, message: CommitCheckpoint) -> None:
    """Every block is in the store, and stays pinned until after the commit."""
    wanted = {message.manifest, *message.block_cids}
    try:
        missing = parts.store.missing(wanted, f"{node}:{message.job_id}:{message.fence}")
    except StoreError as error:
        ours = not isinstance(error, InvalidCid)
        raise CommitRefused(f"the store can't be asked for the blocks: {error}", ours=ours) from error
    if missing:
        raise CommitRefused(f"{len(missing)} of {len(wanted)} blocks are not in the store, {min(missing)} for one")


def _check_manifest(parts: Parts, place: Place, message: CommitCheckpoint) -> Manifest:
    try:
        return manifests.read(parts, place, message)
    except StoreError as error:
        ours = isinstance(error, StoreUnavailable)
        raise CommitRefused(f"the manifest can't be taken: {error}", ours=ours) from error


def _advance(tx: Tx, place: Place, message: CommitCheckpoint, manifest: Manifest) -> None:
    job = jobs.lock(tx, message.job_id)
    award = awards.under_fence(tx, message.job_id, message.fence)
    assert award is not None
    if job.fence != message.fence or award.ended_at is not None:
        raise CommitRefused(f"fence {message.fence} is stale, {job.fence} is current", fenced=True)
    if _is_repeat(tx, message):
        return
    try:
        needs = manifests.needs(place, manifest)
    except ManifestInvalid as error:
        raise CommitRefused(str(error)) from error
    row = CheckpointRow(
        job_id=message.job_id,
        depth=message.checkpoint_seq,
        fence=message.fence,
        epoch=award.epoch,
        node=place.node,
        mode=manifest.mode,
        manifest=message.manifest,
        predecessor=message.predecessor,
        block_cids=sorted(manifest.cids()),
        generation=manifest.generation,
        generations=sorted(manifest.generations()),
        requirements=needs,
        logical_bytes=manifest.logical_bytes,
        new_bytes=message.new_bytes,
        pause_s=message.pause_s,
        total_s=message.total_s,
        final=message.final,
        taken_at=datetime.fromtimestamp(message.taken_at, UTC),
    )
    try:
        jobs.advance_head(tx, row)
    except jobs.StaleFence as error:
        raise CommitRefused(str(error), fenced=error.fence != error.current) from error
    facts = {"seq": row.seq, "fence": row.fence, "mode": row.mode, "new_bytes": row.new_bytes, "pause_s": row.pause_s}
    jobs.record(tx, row.job_id, "checkpoint.committed", {**facts, "total_s": row.total_s, "final": row.final})
    emit(tx, "checkpoint.committed", {"job_id": row.job_id, "seq": row.seq, "final": row.final})


def _excuse(parts: Parts, node: str, message: CommitCheckpoint) -> None:
    """A commit that fails by our own fault counts for the pay of its award as if it had been made."""
    with parts.db.transaction() as tx:
        job = jobs.lock(tx, message.job_id)
        award = awards.of_node(tx, node, message.job_id, message.fence)
        if award is not None and award.ended_at is None and job.fence == message.fence:
            awards.count_as_saved(tx, message.job_id, message.fence)
    outages.note_store(parts)


def _count(parts: Parts, node: str, message: CommitCheckpoint) -> None:
    with parts.db.transaction() as tx:
        if awards.is_zombie(awards.of_node(tx, node, message.job_id, message.fence)):
            nodes.count_refusal(tx, message.job_id, node, message.fence, "checkpoint")
            parts.metrics.refused.labels("checkpoint").inc()
