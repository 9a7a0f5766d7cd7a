"""Commands on their way to a node, and its answers. Keys and store tokens are added here, at the last moment."""

from collections.abc import Collection
from typing import Any

import structlog
from pydantic import TypeAdapter, ValidationError

from everlease.db import Tx, awards, checkpoints, commands, jobs, nodes, queries, restores
from everlease.db.models.jobs import AwardRow
from everlease.db.models.nodes import CommandRow
from everlease.domain.lease import LeaseState
from everlease.store.cid import parse_cid
from everlease.store.errors import BlockCorrupt, BlockNotFound, StoreError
from everlease.wire.commands import AnyCommand, CommandResult
from everlease.wire.node import MAX_FRAME_BYTES
from marketplace.parts import Parts
from marketplace.services.keys import DEDUP_GENERATION, KeyUnavailable, parse_sealing_key

_command: TypeAdapter[AnyCommand] = TypeAdapter(AnyCommand)
_MAX_TIMEOUT_S = 7200.0
_MAX_HINTED_BLOCKS = (MAX_FRAME_BYTES // 2) // 64
_AFTER_THE_FENCE = frozenset({"stop", "freeze"})
"""Kinds that are meant for a host whose fence is stale."""
_log = structlog.get_logger("marketplace.gateway")


class NotSendable(Exception):
    """A command that must not reach its node (any more); it is finished as failed."""

    def __init__(self, reason: str, *, retryable: bool) -> None:
        super().__init__(reason)
        self.retryable = retryable


def outgoing(parts: Parts, node: str, sealing_key: str, sent: Collection[int]) -> list[tuple[int, AnyCommand]]:
    """Commands that wait for this node and were not sent in this session, complete with keys and tokens."""
    with parts.db.transaction() as tx:
        waiting = [(row.id, row.job_id) for row in commands.waiting_for(tx, node) if row.id not in sent]
    ready = []
    for command_id, job_id in waiting:
        with parts.db.transaction() as tx:
            # The job is locked before its command, as recovery does: the fence can't move while a key is released.
            jobs.lock(tx, job_id)
            command = _release(parts, tx, command_id, sealing_key)
        if command is not None:
            ready.append((command_id, command))
    return ready


def take_result(parts: Parts, node: str, message: CommandResult) -> str | None:
    """Keep a node's answer; returns why it is refused (a stale fence), or None. A repeat changes nothing."""
    told = dict(message.result)
    if "damaged" in told and not _is_damaged(parts, node, message, str(told["damaged"])):
        told["called_damaged"] = told.pop("damaged")
    with parts.db.transaction() as tx:
        row = commands.find(tx, node, message.job_id, message.step)
        if row is None:
            return "this node was never given that step"
        current = jobs.get(tx, message.job_id).fence
        if row.fence != message.fence or (row.fence != current and row.kind not in _AFTER_THE_FENCE):
            if awards.is_zombie(awards.of_node(tx, node, message.job_id, row.fence)):
                nodes.count_refusal(tx, message.job_id, node, row.fence, "result")
                parts.metrics.refused.labels("result").inc()
            _fail(tx, row, f"answered under fence {message.fence} after the fence moved on to {current}", False)
            return f"fence {message.fence} is stale, {current} is current"
        commands.finish(
            tx,
            node,
            message.job_id,
            message.step,
            ok=message.ok,
            error=message.error,
            retryable=message.retryable,
            result=told,
        )
    return None


def _is_damaged(parts: Parts, node: str, message: CommandResult, name: str) -> bool:
    """Whether a block that a node calls damaged is one of the checkpoint to restore, and the store's copy is damaged or
    gone. A store that doesn't answer proves nothing.
    """
    with parts.db.transaction() as tx:
        row = commands.find(tx, node, message.job_id, message.step)
        wanted = row.payload.get("checkpoint") if row is not None and row.finished_at is None else None
        found = checkpoints.by_manifest(tx, wanted) if wanted else None
        if found is None or name not in {found.manifest, *found.block_cids}:
            return False
    try:
        parts.store.block(parse_cid(name))
    except (BlockCorrupt, BlockNotFound):
        return True
    except StoreError as error:
        _log.warning("a block that a node calls damaged was not looked at", cid=name, reason=str(error))
    return False


def _release(parts: Parts, tx: Tx, command_id: int, sealing_key: str) -> AnyCommand | None:
    """The command as it goes out, with its ``sent_at`` noted; None where it failed before that or was answered."""
    row = commands.lock(tx, command_id)
    if row is None or row.finished_at is not None:
        return None
    try:
        command = _complete(parts, tx, row, sealing_key)
    except NotSendable as error:
        _log.warning("command not sent", kind=row.kind, job=row.job_id, node=row.node, reason=str(error))
        _fail(tx, row, str(error), error.retryable)
        return None
    commands.mark_sent(tx, row.id)
    return command


def _complete(parts: Parts, tx: Tx, row: CommandRow, sealing_key: str) -> AnyCommand:
    current = jobs.get(tx, row.job_id).fence
    if row.fence != current and row.kind not in _AFTER_THE_FENCE:
        raise NotSendable(f"fence {row.fence} is stale, {current} is current", retryable=False)
    left = row.deadline.timestamp() - parts.clock()
    if left <= 0:
        raise NotSendable(f"the deadline for {row.kind} passed before the node was there", retryable=True)
    fields: dict[str, Any] = {
        **row.payload,
        "kind": row.kind,
        "job_id": row.job_id,
        "fence": row.fence,
        "step": row.step,
        "timeout_s": min(left, _MAX_TIMEOUT_S),
    }
    if row.kind == "prepare":
        fields |= _prepare_extras(parts, tx, row)
    elif row.kind == "start":
        fields |= _start_extras(parts, tx, row, sealing_key)
        # How long, not until when: the host's clock may be an hour ahead, and it must not start before the fence.
        fields["wait_s"] = max(float(fields.pop("not_before", 0.0)) - parts.clock(), 0.0)
    if row.kind in ("start", "restart"):
        fields |= _author(tx, row)
    try:
        return _command.validate_python(fields)
    except ValidationError as error:
        raise NotSendable(f"the command is malformed: {error.errors()[0]['msg']}", retryable=False) from error


def _prepare_extras(parts: Parts, tx: Tx, row: CommandRow) -> dict[str, Any]:
    """A token to read with, and which blocks the checkpoint needs (as many as fit; the manifest has them all)."""
    token, _ = parts.store.token(row.node, f"{row.job_id}:{row.fence}:prepare", write=False, job=row.job_id)
    wanted = row.payload.get("checkpoint")
    head = checkpoints.by_manifest(tx, wanted) if wanted else None
    cids = head.block_cids[:_MAX_HINTED_BLOCKS] if head is not None and head.job_id == row.job_id else []
    return {"store_token": token, "block_cids": cids, "checkpoint_requirements": _needs_of_preparation(tx, row)}


def _needs_of_preparation(tx: Tx, row: CommandRow) -> dict[str, Any] | None:
    """Of the checkpoint that this preparation is for: a preload's is still to be taken by the host before."""
    job = jobs.get(tx, row.job_id)
    award = awards.under_fence(tx, row.job_id, row.fence)
    if award is None or award.node != row.node:
        return restores.requirements(tx, job, "migration", award.mode if award is not None else "process")
    return restores.of_checkpoint(tx, row.job_id, row.payload.get("checkpoint")) if award.mode == "process" else None


def _start_extras(parts: Parts, tx: Tx, row: CommandRow, sealing_key: str) -> dict[str, Any]:
    """The job's keys, sealed to this node, if its lease is ACTIVE on chain under this very award."""
    award = _entitled(tx, row)
    wanted = {award.generation}
    checkpoint = row.payload.get("checkpoint")
    if checkpoint:
        head = checkpoints.by_manifest(tx, checkpoint)
        if head is None or head.job_id != row.job_id:
            raise NotSendable(f"checkpoint {checkpoint} is not one of this job's", retryable=False)
        wanted |= {head.generation, *(int(number) for number in head.generations)}
    parts.keys.ensure(tx, row.job_id, DEDUP_GENERATION)
    parts.keys.ensure(tx, row.job_id, award.generation)
    try:
        sealed = parts.keys.sealed(tx, row.job_id, wanted | {DEDUP_GENERATION}, parse_sealing_key(sealing_key))
    except KeyUnavailable as error:
        raise NotSendable(str(error), retryable=False) from error
    if row.sent_at is None:
        released = {"node": row.node, "fence": row.fence, "generations": sorted(wanted)}
        jobs.record(tx, row.job_id, "key.released", released)
    token, _ = parts.store.token(row.node, f"{row.job_id}:{row.fence}", write=True, job=row.job_id)
    return {
        "generation": award.generation,
        "dedup_secret": sealed.pop(DEDUP_GENERATION),
        "keys": sealed,
        "store_token": token,
    }


def _author(tx: Tx, row: CommandRow) -> dict[str, Any]:
    """Who committed the checkpoint to restore from, as which number, and what it needs; raises NotSendable."""
    wanted = row.payload.get("checkpoint")
    if not wanted:
        return {}
    found = checkpoints.by_manifest(tx, wanted)
    if found is None or found.job_id != row.job_id:
        raise NotSendable(f"checkpoint {wanted} is not one of this job's", retryable=False)
    award = awards.under_fence(tx, row.job_id, row.fence)
    live = award is not None and award.mode == "process"
    needs = restores.of_checkpoint(tx, row.job_id, wanted) if live else None
    return {"checkpoint_node": found.node, "checkpoint_seq": found.depth, "checkpoint_requirements": needs}


def _entitled(tx: Tx, row: CommandRow) -> AwardRow:
    """The award that this Start is for; raises NotSendable unless award, node and the mirrored lease agree."""
    award = awards.current(tx, row.node, [row.job_id]).get(row.job_id, (None, None))[0]
    if award is None or award.fence != row.fence:
        raise NotSendable(f"node {row.node} doesn't hold this job now: no key for it", retryable=False)
    lease = queries.lease(tx, award.lease_id)
    if lease is None or lease.state != LeaseState.ACTIVE or lease.job_id != row.job_id or lease.node != row.node:
        state = "not on chain" if lease is None else lease.state
        raise NotSendable(f"the lease is {state}, not ACTIVE for this node: no key yet", retryable=True)
    if row.payload.get("lease_id") != award.lease_id:
        raise NotSendable("the command names another lease than the award", retryable=False)
    return award


def _fail(tx: Tx, row: CommandRow, error: str, retryable: bool) -> None:
    commands.finish(tx, row.node, row.job_id, row.step, ok=False, error=error, retryable=retryable, result={})
