"""Awards: a node's tenure over a job under one fence."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import func, or_, select, update

from everlease.db.engine import Tx
from everlease.db.models.jobs import AwardRow, JobRow, ReceiptRow
from everlease.db.models.nodes import CommandRow, NodeRow
from everlease.domain.earning import Accrual, accrue

_SHUT_OUT = ("lost", "voided", "gave_notice", "unsent", "late")
"""Outcomes that a node did not agree to; all others end in order, and its last words are welcome."""


@dataclass(frozen=True, slots=True)
class Beat:
    """One job's line in a heartbeat: who claims to serve it, under which fence."""

    job_id: str
    fence: int
    serving: bool
    loss_bound_s: float | None
    storing: bool = False


UNHEARD_S = 30.0
"""A longer silence between two heartbeats is no time that a node said to be idle: we may have been away ourselves."""


def beat(tx: Tx, node: str, beats: Sequence[Beat]) -> list[Beat]:
    """Credit a node's heartbeat to its current awards; returns the beats whose fence is stale or was never its own.

    Service is counted by the database's clock, from the award's start on, and never over a gap longer than the
    order's ``max_silence``. By the same clock: since when a node has been saying that it does not serve.

    From the lease's opening until its job starts, a heartbeat says that the node is there, and earns nothing: receipts
    of 0 seconds then show that it was not silent, until the deadline of what it was told to do.
    """
    held = current(tx, node, [beat.job_id for beat in beats])
    now = tx.scalar(select(func.clock_timestamp()))
    assert isinstance(now, datetime)
    refused = []
    for line in beats:
        award, job = held.get(line.job_id, (None, None))
        if award is None or job is None or award.fence != line.fence:
            refused.append(line)
        elif award.started_at is not None:
            since = max(award.last_beat_at or award.started_at, award.started_at)
            before = Accrual(award.earned_s, since.timestamp())
            after = accrue(before, now.timestamp(), line.serving, float(job.order["max_silence"]))
            if line.serving:
                award.idle_since = None
            elif award.idle_since is None or now.timestamp() - before.seen_at > UNHEARD_S:
                award.idle_since = now
            award.earned_s, award.last_beat_at = after.earned, now
            award.serving, award.storing, award.loss_bound_s = line.serving, line.storing, line.loss_bound_s
        elif award.opened_at is not None and _at_work(tx, award, now):
            award.last_beat_at = now
    return refused


def count_as_saved(tx: Tx, job_id: str, fence: int) -> None:
    """What was served under an award so far is saved: by a commit, or because the commit failed by our own fault."""
    tx.execute(
        update(AwardRow).where(AwardRow.job_id == job_id, AwardRow.fence == fence).values(saved_s=AwardRow.earned_s)
    )


def count_all_as_saved(tx: Tx) -> int:
    """``count_as_saved`` for every award that lasts: nobody can commit while the store, or the gateway, is away.

    Returns how many. Awards that a heartbeat or commit has locked are left out: call it again while that lasts.
    """
    lasting = select(AwardRow.id).where(AwardRow.ended_at.is_(None), AwardRow.saved_s < AwardRow.earned_s)
    ids = tx.scalars(lasting.order_by(AwardRow.id).with_for_update(skip_locked=True)).all()
    tx.execute(update(AwardRow).where(AwardRow.id.in_(ids)).values(saved_s=AwardRow.earned_s))
    return len(ids)


def forfeit(tx: Tx, job_id: str, fence: int) -> None:
    """The job goes back to its checkpoint by its host's fault: what was served since then is lost."""
    lost = AwardRow.earned_s - AwardRow.saved_s
    values = {"forfeited_s": AwardRow.forfeited_s + lost, "saved_s": AwardRow.earned_s}
    tx.execute(update(AwardRow).where(AwardRow.job_id == job_id, AwardRow.fence == fence).values(values))


def _at_work(tx: Tx, award: AwardRow, now: datetime) -> bool:
    """Whether a node that does not serve yet has its time still: until the deadline of its newest Prepare or Start."""
    newest = tx.execute(
        select(CommandRow.kind, CommandRow.deadline, CommandRow.finished_at)
        .where(
            CommandRow.job_id == award.job_id,
            CommandRow.node == award.node,
            CommandRow.fence == award.fence,
            CommandRow.kind.in_(("prepare", "start")),
        )
        .order_by(CommandRow.id.desc())
        .limit(1)
    ).one_or_none()
    if newest is None or (newest.kind == "start" and newest.finished_at is not None):
        return False
    return bool(now <= newest.deadline)


def current(tx: Tx, node: str, job_ids: Collection[str]) -> dict[str, tuple[AwardRow, JobRow]]:
    """Those of the jobs that this node holds now: the award has not ended and its fence is the job's.

    A goodbye is final: recovery may give the job away at any moment, so whoever said it has no more part in it.
    """
    rows = tx.execute(
        select(AwardRow, JobRow)
        .join(JobRow, (JobRow.id == AwardRow.job_id) & (JobRow.fence == AwardRow.fence))
        .where(
            AwardRow.node == node,
            AwardRow.job_id.in_(job_ids),
            AwardRow.ended_at.is_(None),
            ~AwardRow.facts.has_key("goodbye"),
        )
        .with_for_update(of=AwardRow)
    )
    return {job.id: (award, job) for award, job in rows}


def under_fence(tx: Tx, job_id: str, fence: int) -> AwardRow | None:
    """The award of this job under this fence, ended or not."""
    return tx.scalar(select(AwardRow).where(AwardRow.job_id == job_id, AwardRow.fence == fence))


def of_node(tx: Tx, node: str, job_id: str, fence: int) -> AwardRow | None:
    """The award under this fence if it was this node's; None for a fence that is made up."""
    award = under_fence(tx, job_id, fence)
    return award if award is not None and award.node == node else None


def is_current(tx: Tx, job_id: str, fence: int) -> bool:
    """Whether the award under this fence lasts."""
    award = under_fence(tx, job_id, fence)
    return award is not None and award.ended_at is None


def is_zombie(award: AwardRow | None) -> bool:
    """Whether a node was shut out under this award (lost, or void): what it still sends is a zombie's."""
    return award is not None and award.ended_at is not None and award.outcome in _SHUT_OUT


def held_by(tx: Tx, node: str) -> Sequence[AwardRow]:
    """Awards of a node that have not ended, oldest first."""
    return tx.scalars(
        select(AwardRow).where(AwardRow.node == node, AwardRow.ended_at.is_(None)).order_by(AwardRow.id)
    ).all()


def ever_given(tx: Tx, node: str) -> bool:
    """Whether a node was given a job at any time."""
    return tx.scalar(select(AwardRow.id).where(AwardRow.node == node).limit(1)) is not None


def unreported(tx: Tx, before: datetime) -> Sequence[AwardRow]:
    """Awards that started, whose nodes are connected since before then, were heard since, and did not mention them."""
    return tx.scalars(
        select(AwardRow)
        .join(NodeRow, NodeRow.address == AwardRow.node)
        .where(
            AwardRow.ended_at.is_(None),
            AwardRow.started_at < before,
            NodeRow.last_seen > before,
            func.coalesce(AwardRow.last_beat_at, AwardRow.started_at) < before,
            ~AwardRow.facts.has_key("goodbye"),
            NodeRow.connected,
            NodeRow.connected_at < before,
        )
    ).all()


def give(tx: Tx, row: AwardRow) -> None:
    """Add an award; its fence came from ``raise_fence`` in the same transaction."""
    tx.add(row)
    tx.flush()


def note(tx: Tx, job_id: str, fence: int, instants: Mapping[str, datetime | None], facts: Mapping[str, Any]) -> None:
    """Set instants and merge facts of an award; a fact of None is removed."""
    row = _held(tx, job_id, fence)
    if row is None:
        return
    for name, at in instants.items():
        setattr(row, name, at)
    if facts:
        merged = {**row.facts, **facts}
        row.facts = {key: value for key, value in merged.items() if value is not None}


def _held(tx: Tx, job_id: str, fence: int) -> AwardRow | None:
    """An award as it is now, locked: others write facts of it, too, and what was read before may be old."""
    return tx.scalar(
        select(AwardRow)
        .where(AwardRow.job_id == job_id, AwardRow.fence == fence)
        .with_for_update()
        .execution_options(populate_existing=True)
    )


def end(tx: Tx, job_id: str, fence: int, outcome: str, at: datetime) -> AwardRow | None:
    """End a tenure; None where it was over already."""
    row = _held(tx, job_id, fence)
    if row is None or row.ended_at is not None:
        return None
    row.ended_at, row.outcome, row.serving = at, outcome, False
    return row


@dataclass(frozen=True, slots=True)
class Ended:
    """When an award ended, and how much of one kind its node has said since, in that kind's unit."""

    at: datetime
    used: int


def count_late(tx: Tx, job_id: str, fence: int, kind: str, size: int) -> Ended | None:
    """Add what a node says under an award that has ended to what it said since then; None where it goes on."""
    award = _held(tx, job_id, fence)
    if award is None or award.ended_at is None:
        return None
    name = f"late_{kind}"
    used = int(award.facts.get(name, 0)) + size
    note(tx, job_id, fence, {}, {name: used})
    return Ended(award.ended_at, used)


_MOST_EXITS = 64
"""More containers than any award starts: a node that reports more makes them up."""


def note_exit(tx: Tx, job_id: str, fence: int, container: str, code: int, at: float, host_fault: str = "") -> bool:
    """Keep a container's exit until the planner has acted on it; the same container ends once, and there are few.

    Until then it stands: a host that names ever new containers wins no time by that. The next one waits behind it, for
    ``settle_exit``: a container that was started again may have ended before that was counted.

    ``host_fault``: why it was the host's doing, as the host says; empty for the program's. False for a repeat.
    """
    row = _held(tx, job_id, fence)
    if row is None:
        return False
    known = row.facts.get("exits", ())
    if container in known or len(known) >= _MOST_EXITS or "next_exit" in row.facts:
        return False
    told = {"exit_code": code, "exited_at": at, "host_fault": host_fault or None}
    facts = {"next_exit": told} if "exit_code" in row.facts else told
    note(tx, job_id, fence, {}, {"exits": [*known, container], **facts})
    return True


def settle_exit(tx: Tx, job_id: str, fence: int) -> None:
    """The planner has acted on the exit: the one that waits behind it takes its place."""
    row = _held(tx, job_id, fence)
    waits = (row.facts.get("next_exit") if row is not None else None) or {}
    names = ("exit_code", "exited_at", "host_fault")
    note(tx, job_id, fence, {}, {**{name: waits.get(name) for name in names}, "next_exit": None})


def note_goodbye(tx: Tx, node: str, job_id: str, fence: int, word: dict[str, Any]) -> bool:
    """Keep a node's last word on an award that it holds now; False for a repeat, or where it holds none."""
    award, _ = current(tx, node, [job_id]).get(job_id, (None, None))
    if award is None or award.fence != fence:
        return False
    note(tx, job_id, fence, {}, {"goodbye": word})
    return True


def goodbyes(tx: Tx, node: str, since: float) -> int:
    """How often a node stopped in order since then (unix seconds), whatever the number of its jobs."""
    word = AwardRow.facts["goodbye"]
    return (
        tx.scalar(
            select(func.count(func.distinct(word["session"].as_string()))).where(
                AwardRow.node == node, AwardRow.facts.has_key("goodbye"), word["at"].as_float() > since
            )
        )
        or 0
    )


def unreceipted(tx: Tx) -> Sequence[AwardRow]:
    """Awards that run and whose last heartbeat is newer than their newest receipt."""
    return tx.scalars(
        select(AwardRow)
        .outerjoin(ReceiptRow, ReceiptRow.lease_id == AwardRow.lease_id)
        .where(
            AwardRow.ended_at.is_(None),
            AwardRow.opened_at.is_not(None),
            AwardRow.last_beat_at.is_not(None),
            or_(
                ReceiptRow.lease_id.is_(None),
                func.floor(func.extract("epoch", AwardRow.last_beat_at)) > ReceiptRow.seen_at,
            ),
        )
        .order_by(AwardRow.id)
        .execution_options(populate_existing=True)
    ).all()


def locked(tx: Tx, job_id: str, fence: int) -> tuple[AwardRow, JobRow] | None:
    """An award and its job with the award locked, ended or not."""
    found = tx.execute(
        select(AwardRow, JobRow)
        .join(JobRow, JobRow.id == AwardRow.job_id)
        .where(AwardRow.job_id == job_id, AwardRow.fence == fence)
        .with_for_update(of=AwardRow)
        .execution_options(populate_existing=True)
    ).one_or_none()
    return None if found is None else (found[0], found[1])
