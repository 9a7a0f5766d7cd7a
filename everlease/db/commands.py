"""Commands to nodes: written once per (job, step), sent by the gateway, answered by the node."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import func, select, text
from sqlalchemy.dialects.postgresql import insert

from everlease.db.engine import Tx
from everlease.db.models.nodes import CommandRow
from everlease.db.outbox import emit

CHANNEL = "everlease_command"
"""NOTIFY payload: the node's address."""


def issue(
    tx: Tx, node: str, job_id: str, fence: int, step: str, kind: str, payload: dict[str, Any], deadline: datetime
) -> None:
    """Write a command unless this (job, step) was written before; the gateway is woken when it commits."""
    added = tx.execute(
        insert(CommandRow)
        .values(
            node=node, job_id=job_id, fence=fence, step=step, kind=kind, payload=payload, deadline=deadline, error=""
        )
        .on_conflict_do_nothing(index_elements=["job_id", "step"])
        .returning(CommandRow.id)
    ).one_or_none()
    if added is not None:
        tx.execute(text("SELECT pg_notify(:channel, :node)"), {"channel": CHANNEL, "node": node})


def waiting_for(tx: Tx, node: str) -> Sequence[CommandRow]:
    """Commands this node has not answered, oldest first; after a reconnect all are sent again."""
    return tx.scalars(
        select(CommandRow).where(CommandRow.node == node, CommandRow.finished_at.is_(None)).order_by(CommandRow.id)
    ).all()


def lock(tx: Tx, command_id: int) -> CommandRow | None:
    """A command, locked until the transaction ends."""
    return tx.scalar(
        select(CommandRow)
        .where(CommandRow.id == command_id)
        .with_for_update()
        .execution_options(populate_existing=True)
    )


def find(tx: Tx, node: str, job_id: str, step: str) -> CommandRow | None:
    """The command that this node was given as this step."""
    return tx.scalar(
        select(CommandRow).where(CommandRow.node == node, CommandRow.job_id == job_id, CommandRow.step == step)
    )


def mark_sent(tx: Tx, command_id: int) -> None:
    """Record that the gateway put the command on the socket."""
    row = tx.get(CommandRow, command_id)
    if row is not None and row.sent_at is None:
        row.sent_at = tx.scalar(select(func.clock_timestamp()))


def finish(
    tx: Tx, node: str, job_id: str, step: str, *, ok: bool, error: str, retryable: bool, result: dict[str, Any]
) -> bool:
    """Record a node's answer and emit ``command.finished``; False for a repeat or a step this node was never given."""
    row = tx.scalar(
        select(CommandRow)
        .where(CommandRow.node == node, CommandRow.job_id == job_id, CommandRow.step == step)
        .with_for_update()
    )
    if row is None or row.finished_at is not None:
        return False
    row.finished_at = tx.scalar(select(func.clock_timestamp()))
    row.ok, row.error, row.retryable, row.result = ok, error, retryable, result
    emit(tx, "command.finished", {"job_id": job_id, "step": step, "kind": row.kind, "ok": ok})
    return True


def asked_within(tx: Tx, job_id: str, fence: int, kind: str, seconds: float) -> int:
    """How many commands of this kind were out under this fence within so many seconds."""
    since = func.clock_timestamp() - timedelta(seconds=seconds)
    found = select(func.count()).where(
        CommandRow.job_id == job_id,
        CommandRow.fence == fence,
        CommandRow.kind == kind,
        CommandRow.finished_at.is_(None) | (CommandRow.finished_at >= since),
    )
    return tx.scalar(found) or 0


def expire(tx: Tx, now: datetime) -> Sequence[CommandRow]:
    """Commands whose deadline passed without an answer are finished as failed and retryable; returns them."""
    rows = tx.scalars(
        select(CommandRow)
        .where(CommandRow.finished_at.is_(None), CommandRow.deadline <= now)
        .with_for_update(skip_locked=True)
    ).all()
    for row in rows:
        row.finished_at, row.ok, row.retryable = now, False, True
        row.error = f"the node did not answer {row.kind} in time"
        emit(tx, "command.finished", {"job_id": row.job_id, "step": row.step, "kind": row.kind, "ok": False})
    return rows
