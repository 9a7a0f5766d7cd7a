"""What else a node says: its facts anew, logs, notices, a drain; and what it asks for: tokens and receipts."""

from everlease.db import Tx, awards, jobs, logs, nodes, queries
from everlease.db.models.jobs import ReceiptRow
from everlease.db.outbox import NOTICE, emit
from everlease.wire.node import (
    Drain,
    FactsMessage,
    Goodbye,
    JobNotice,
    LogChunk,
    ReceiptRequest,
    Receipts,
    TokenGrant,
    TokenRequest,
)
from everlease.wire.terms import ReceiptModel, SignedReceipt
from marketplace.parts import Parts

_TRIM_EVERY = 64
_MOST_LATE_NOTICES = 16
_AFTER_THE_FENCE = frozenset({"fenced"})
"""Notices that a host may still give under a stale fence: it says that it froze itself."""


def take_facts(parts: Parts, node: str, session: str, message: FactsMessage) -> bool:
    """Keep what a node now says of its host; whether that is news."""
    with parts.db.transaction() as tx:
        return nodes.restate(tx, node, session, message.facts)


def take_log(parts: Parts, node: str, message: LogChunk) -> str | None:
    """Keep a piece of output; returns why it is refused, or None."""
    with parts.db.transaction() as tx:
        refusal = _refusal(parts, tx, node, message.job_id, message.fence, "log")
        refusal = refusal or _too_late(parts, tx, message.job_id, message.fence, "log", len(message.text.encode()))
        if refusal is not None:
            return refusal
        added = logs.append(tx, message.job_id, message.fence, message.stream, message.offset, message.text)
        # By the row's id: a node that chose when to trim could choose never.
        if added is not None and added % _TRIM_EVERY == 0:
            logs.trim(tx, message.job_id, parts.settings.log_bytes_per_job)
    return None


def take_notice(parts: Parts, node: str, message: JobNotice) -> str | None:
    """Hand a notice to recovery, which writes it into the job's history; returns why it is refused, or None."""
    with parts.db.transaction() as tx:
        award = awards.of_node(tx, node, message.job_id, message.fence)
        always = award is not None and message.kind in _AFTER_THE_FENCE
        refusal = None if always else _refusal(parts, tx, node, message.job_id, message.fence, "notice")
        refusal = refusal or _too_late(parts, tx, message.job_id, message.fence, "notice", 1, always=always)
        if refusal is not None:
            return refusal
        facts = {"node": node, "fence": message.fence, "kind": message.kind, "detail": message.detail}
        emit(tx, NOTICE, {"job_id": message.job_id, **facts, "data": {**message.data, "node": node}})
    return None


def take_drain(parts: Parts, node: str, message: Drain) -> int:
    """No more bids from this node, and its jobs move; returns how many it holds."""
    told: dict[str, object] = {"node": node, "reason": message.reason}
    if message.within_s is not None:
        told["within_s"] = message.within_s
    with parts.db.transaction() as tx:
        held = nodes.drain(tx, node, message.reason)
        for job_id in held:
            jobs.lock(tx, job_id)
            jobs.record(tx, job_id, "node.draining", told)
    return len(held)


def take_restart(parts: Parts, node: str, session: str) -> None:
    """The node's agent is about to be started anew: the monitor waits for it longer. A repeat changes nothing."""
    with parts.db.transaction() as tx:
        if nodes.note_restart(tx, node, session):
            for award in awards.held_by(tx, node):
                jobs.record(tx, award.job_id, "node.restarting", {"node": node, "fence": award.fence})


def take_goodbye(parts: Parts, node: str, session: str, message: Goodbye) -> None:
    """Keep what a node that stops in order says of its jobs; recovery moves them at once. A repeat changes nothing.

    Nor does the goodbye of a session that was replaced: the node is back, and may have been let go on.
    """
    with parts.db.transaction() as tx:
        if not nodes.is_current(tx, node, session):
            return
        for word in message.jobs:
            facts = {
                "at": parts.clock(),
                "session": session,
                "head": word.head,
                "still": word.still,
                "why": word.why,
                "reason": message.reason,
            }
            if awards.note_goodbye(tx, node, word.job_id, word.fence, facts):
                emit(tx, "node.goodbye", {"job_id": word.job_id, "node": node, "fence": word.fence})
        nodes.stop_offering(tx, node)


def grant_token(parts: Parts, node: str, message: TokenRequest) -> TokenGrant:
    """A fresh store token for a job that the node holds or prepares."""
    with parts.db.transaction() as tx:
        _refusal(parts, tx, node, message.job_id, message.fence, "token")
        held = awards.current(tx, node, [message.job_id]).get(message.job_id, (None, None))[0]
        holds = held is not None and held.fence == message.fence
        prepares = queries.is_preparing(tx, node, message.job_id, message.fence)
    if not holds and not prepares:
        return TokenGrant(seq=0, request=message.request, ok=False, error="this node doesn't hold that job")
    session = f"{message.job_id}:{message.fence}"
    token, _ = parts.store.token(node, session, write=holds, job=message.job_id)
    return TokenGrant(seq=0, request=message.request, ok=True, token=token)


def find_receipt(parts: Parts, node: str, message: ReceiptRequest) -> tuple[Receipts | None, str]:
    """(the newest receipt of a lease, "") or (None, why it is refused)."""
    with parts.db.transaction() as tx:
        refusal = _refusal(parts, tx, node, message.job_id, message.fence, "receipt")
        if refusal is not None:
            return None, refusal
        row = queries.receipt(tx, message.lease_id)
    rows = [row] if row is not None and row.node == node and row.job_id == message.job_id else []
    return _receipts(rows), ""


def receipts_for(parts: Parts, node: str) -> Receipts:
    """The newest receipts of the node's unsettled leases."""
    with parts.db.transaction() as tx:
        return _receipts(list(queries.receipts_for(tx, node)))


def _receipts(rows: list[ReceiptRow]) -> Receipts:
    return Receipts(
        seq=0,
        receipts=[
            SignedReceipt(
                receipt=ReceiptModel(
                    lease_id=row.lease_id,
                    seq=row.seq,
                    seen_at=row.seen_at,
                    earned=row.earned,
                    final=row.final,
                    checkpoint_root=row.checkpoint_root,
                ),
                signature=row.signature,
            )
            for row in rows
        ],
    )


def _too_late(
    parts: Parts, tx: Tx, job_id: str, fence: int, kind: str, size: int, *, always: bool = False
) -> str | None:
    """Why the last words of a host whose award has ended are refused, or None: they have a time and an amount.

    ``size``: bytes of a log, else 1. ``always``: whenever it comes, though not in any amount.
    """
    most = parts.settings.late_log_bytes if kind == "log" else _MOST_LATE_NOTICES
    ended = awards.count_late(tx, job_id, fence, kind, size)
    if ended is None:
        return None
    since = parts.clock() - ended.at.timestamp()
    if since > parts.settings.late_grace and not always:
        reason = f"the award under fence {fence} ended {since:.0f} s ago"
    elif ended.used > most:
        reason = f"the award under fence {fence} has ended, and enough was said since"
    else:
        return None
    parts.metrics.refused.labels(f"late {kind}").inc()
    return reason


def _refusal(parts: Parts, tx: Tx, node: str, job_id: str, fence: int, kind: str) -> str | None:
    """Why a message about a job is refused: a fence that was never this node's, or a zombie's (then it is counted).

    After an end in order the node may speak on for a while: the end of a log, the wish for its final receipt.
    """
    award = awards.of_node(tx, node, job_id, fence)
    if award is None:
        return f"this node was never awarded the job under fence {fence}"
    if not awards.is_zombie(award):
        return None
    nodes.count_refusal(tx, job_id, node, fence, kind)
    parts.metrics.refused.labels(kind).inc()
    return f"fence {fence} is stale: this node was shut out ({award.outcome})"
