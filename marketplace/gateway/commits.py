"""Checkpoint commits: signature, blocks, then the fenced move of the job's head. Answers can be repeated."""

from datetime import UTC, datetime

from everlease.db import Tx, awards, checkpoints, jobs, keys, nodes
from everlease.db.models.jobs import CheckpointRow, JobRow
from everlease.db.outbox import emit
from everlease.domain import compat
from everlease.store.cid import parse_cid
from everlease.store.errors import ManifestInvalid, StoreError
from everlease.store.manifest import committed_by
from everlease.wire.node import CommitAnswer, CommitCheckpoint
from marketplace.parts import Parts


class CommitRefused(Exception):
    """A commit that is not made. ``fenced``: because somebody else holds the job now."""

    retryable = False

    def __init__(self, reason: str, *, fenced: bool = False) -> None:
        super().__init__(reason)
        self.fenced = fenced


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
            _check_place(tx, job, node, message)
        _check_blocks(parts, node, message)
        with parts.db.transaction() as tx:
            _advance(tx, node, message)
        parts.metrics.commits.labels("committed").inc()
        return _answer(message, message.manifest)
    except CommitRefused as error:
        if error.fenced:
            _count(parts, node, message)
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
    """CIDs that parse, and requirements that a host can be matched against."""
    try:
        for cid in (message.manifest, *message.block_cids):
            parse_cid(cid)
    except StoreError as error:
        raise CommitRefused(str(error)) from error
    if message.mode == "process":
        try:
            compat.traits_from(message.requirements)
        except (KeyError, TypeError, ValueError) as error:
            raise CommitRefused(f"the requirements of a process checkpoint lack or garble {error}") from error
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
    if (known.job_id, known.seq, known.fence) != (message.job_id, message.checkpoint_seq, message.fence):
        raise CommitRefused("this manifest was committed before, as another checkpoint")
    return True


def _check_place(tx: Tx, job: JobRow, node: str, message: CommitCheckpoint) -> None:
    if (message.checkpoint_seq, message.predecessor) != (job.head_seq + 1, job.head_manifest):
        raise CommitRefused(
            f"the checkpoint follows {message.predecessor} as number {message.checkpoint_seq}, "
            f"the head is {job.head_manifest}, number {job.head_seq}"
        )
    award = awards.under_fence(tx, message.job_id, message.fence)
    if award is None or message.generation != award.generation:
        raise CommitRefused(f"generation {message.generation} is not this award's")
    known = keys.wrapped_keys(tx, message.job_id, message.generations)
    if set(message.generations) - set(known) or 0 in message.generations:
        raise CommitRefused("the checkpoint names key generations that this job doesn't have")


def _check_blocks(parts: Parts, node: str, message: CommitCheckpoint) -> None:
    """Every block is in the store, and stays pinned until after the commit."""
    wanted = {message.manifest, *message.block_cids}
    try:
        missing = parts.store.missing(wanted, f"{node}:{message.job_id}:{message.fence}")
    except StoreError as error:
        raise CommitRefused(f"the store can't be asked for the blocks: {error}") from error
    if missing:
        raise CommitRefused(f"{len(missing)} of {len(wanted)} blocks are not in the store, {min(missing)} for one")


def _advance(tx: Tx, node: str, message: CommitCheckpoint) -> None:
    job = jobs.lock(tx, message.job_id)
    award = awards.under_fence(tx, message.job_id, message.fence)
    assert award is not None
    if job.fence != message.fence or award.ended_at is not None:
        raise CommitRefused(f"fence {message.fence} is stale, {job.fence} is current", fenced=True)
    if _is_repeat(tx, message):
        return
    row = CheckpointRow(
        job_id=message.job_id,
        seq=message.checkpoint_seq,
        fence=message.fence,
        epoch=award.epoch,
        node=node,
        mode=message.mode,
        manifest=message.manifest,
        predecessor=message.predecessor,
        block_cids=message.block_cids,
        generation=message.generation,
        generations=message.generations,
        requirements=message.requirements,
        logical_bytes=message.logical_bytes,
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


def _count(parts: Parts, node: str, message: CommitCheckpoint) -> None:
    with parts.db.transaction() as tx:
        if awards.is_zombie(awards.of_node(tx, node, message.job_id, message.fence)):
            nodes.count_refusal(tx, message.job_id, node, message.fence, "checkpoint")
            parts.metrics.refused.labels("checkpoint").inc()
