"""The thin shell around the planner: lock, load, plan, apply, in one transaction; then the sender is pumped."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import singledispatch
from typing import Any

import structlog

from everlease.chain.contracts import Call, EscrowCalls
from everlease.chain.typed_data import lease_id
from everlease.db import (
    Database,
    Tx,
    auctions,
    awards,
    checkpoints,
    commands,
    jobs,
    journal,
    prices,
    receipts,
    restores,
    snapshots,
    terms,
)
from everlease.db.models.jobs import AwardRow, JobRow
from everlease.db.outbox import emit
from everlease.domain import jobspec
from everlease.domain.job import JobEvent, JobState
from everlease.domain.reserve import Reserve, class_of, fix
from everlease.domain.terms import Bid, Order, lease_params
from recovery import moves as m
from recovery.planner import Policy, plan
from recovery.planner.leases import SETTLEMENT_FAILING
from recovery.receipts import Watcher, sign

log = structlog.get_logger()
_MOST_ROUNDS = 40


class PlannerLoops(Exception):
    """The planner kept finding moves: a bug. Nothing was committed."""

    retryable = False


@dataclass(frozen=True)
class Desk:
    """What applying a plan takes: database, the watcher's key, the contract's calls, the policy and a clock."""

    database: Database
    watcher: Watcher
    calls: EscrowCalls
    policy: Policy
    clock: Callable[[], float]


@dataclass(frozen=True)
class _Work:
    """One transaction's work on one locked job."""

    desk: Desk
    tx: Tx
    job: JobRow
    now: float

    @property
    def at(self) -> datetime:
        return _instant(self.now)


def advance(desk: Desk, job_id: str) -> list[m.Move]:
    """Bring one job as far as it can go now; returns the moves made. Run twice, the second run makes none.

    Raises UnknownJob, DatabaseUnavailable (retryable) and PlannerLoops; then nothing was committed.
    """
    done: list[m.Move] = []
    with desk.database.transaction() as tx:
        work = _Work(desk, tx, jobs.lock(tx, job_id), desk.clock())
        for _ in range(_MOST_ROUNDS):
            moves = plan(snapshots.load(tx, work.job), work.now, desk.policy)
            if not moves:
                return done
            for move in moves:
                _apply(move, work)
            tx.flush()
            done.extend(moves)
        raise PlannerLoops(f"job {job_id} in {work.job.state}: {done[-3:]}")


def lose(desk: Desk, job_id: str, fence: int, why: dict[str, Any]) -> bool:
    """The award's node is LOST: last receipt, end of the tenure, RECOVERING. False where the award was over."""
    with desk.database.transaction() as tx:
        work = _Work(desk, tx, jobs.lock(tx, job_id), desk.clock())
        award = awards.under_fence(tx, job_id, fence)
        if award is None or award.ended_at is not None:
            return False
        emit(tx, "job.host_lost", {"job_id": job_id})
        if "goodbye" in award.facts:
            return False
        awards.note(tx, job_id, fence, {}, {"last_seen_at": why.get("last_seen")})
        if award.started_at is not None and _told_of_its_end(award) and _outputs_are_in(tx, work.job, fence):
            # The host died after its job: its outputs are the head, only word of the exit was lost.
            awards.note(tx, job_id, fence, {}, {"exit_code": 0, "exited_at": work.now, "host_fault": None})
            return False
        if award.opened_at is not None:
            # Whoever cancels has no use for what would be saved yet.
            in_full = work.job.state == JobState.CANCELLING
            sign(tx, desk.watcher, award, work.job, final=False, in_full=in_full, now=work.now)
        _end(work, fence, "lost", recovery=True)
        jobs.apply_event(tx, work.job, JobEvent.LOST, fence=fence, node=award.node, epoch=award.epoch, **why)
        return True


def _told_of_its_end(award: AwardRow) -> bool:
    """As planner.hosts.ended_well: word of the exit, or heartbeats that say that the job stands still to be stored."""
    exited = award.facts.get("exit_code") == 0 and "host_fault" not in award.facts
    return exited or (award.storing and award.idle_since is not None)


def _outputs_are_in(tx: Tx, job: JobRow, fence: int) -> bool:
    head = checkpoints.by_manifest(tx, job.head_manifest) if job.head_manifest else None
    return head is not None and head.final and head.fence == fence


@singledispatch
def _apply(move: object, work: _Work) -> None:
    raise NotImplementedError(type(move).__name__)


@_apply.register
def _(move: m.ApplyEvent, work: _Work) -> None:
    jobs.apply_event(work.tx, work.job, move.event, move.reason, **move.data)


@_apply.register
def _(move: m.Record, work: _Work) -> None:
    jobs.record(work.tx, work.job.id, move.kind, dict(move.data))
    if move.kind == SETTLEMENT_FAILING:
        log.error("settlement.failing", job_id=work.job.id, **move.data)


@_apply.register
def _(move: m.ClearWish, work: _Work) -> None:
    work.job.wish, work.job.wish_detail = None, {}


@_apply.register
def _(move: m.BeginFrom, work: _Work) -> None:
    head = checkpoints.restorable(work.tx, work.job.id, move.seq) if move.seq else None
    jobs.resume_from(work.tx, work.job, head, beginning=move.seq == 0)


@_apply.register
def _(move: m.SetExitCode, work: _Work) -> None:
    work.job.exit_code = move.code


@_apply.register
def _(move: m.SetDue, work: _Work) -> None:
    work.job.due_at = None if move.at is None else _instant(move.at)


@_apply.register
def _(move: m.OpenAuction, work: _Work) -> None:
    reserve = _reserve(move, work)
    auction_id = auctions.call(
        work.tx,
        work.job.id,
        epoch=move.epoch,
        plan=move.plan,
        mode=move.mode,
        excluded=move.excluded,
        opened_at=work.at,
        closes_at=_instant(work.now + move.window_s),
        bids_until=_instant(move.bids_until),
        reserve=reserve,
    )
    rises = {"reserve": reserve.start, "source": reserve.source, "maximum": reserve.maximum, "rise_s": reserve.rise_s}
    jobs.record(work.tx, work.job.id, "auction.opened", {"auction_id": auction_id, "plan": move.plan, **rises})


@_apply.register
def _(move: m.HoldBids, work: _Work) -> None:
    auctions.hold(work.tx, move.auction_id, move.number, move.held)
    told: dict[str, Any] = {"auction_id": move.auction_id, "round": move.number, "bids": len(move.held)}
    told["reason"] = "every bid is above the reserve of this round"
    jobs.record(work.tx, work.job.id, "auction.held", told)


@_apply.register
def _(move: m.CloseAuction, work: _Work) -> None:
    auctions.close(work.tx, move.auction_id, move.outcome, dict(move.winner), work.at)
    jobs.record(work.tx, work.job.id, "auction.closed", {"auction_id": move.auction_id, "outcome": move.outcome})


@_apply.register
def _(move: m.GiveAward, work: _Work) -> None:
    lease = lease_id(lease_params(Order(**work.job.order), Bid(**move.bid), move.rate_per_hour))
    point = jobs.raise_fence(work.tx, work.job.id)
    work.tx.refresh(work.job)
    awards.give(
        work.tx,
        AwardRow(
            job_id=work.job.id,
            fence=point.fence,
            epoch=move.epoch,
            auction_id=move.auction_id,
            node=move.node,
            provider=move.provider,
            bid=dict(move.bid),
            bid_signature=move.signature,
            rate_per_hour=move.rate_per_hour,
            lease_id=lease,
            mode=move.mode,
            generation=point.fence,
            restore_seq=point.seq,
            restore_manifest=point.manifest,
            settle=move.settle,
            awarded_at=work.at,
            facts={"mtbf_s": move.mtbf_s},
        ),
    )
    if move.priced_by_rivals:
        prices.note(work.tx, work.job, move.node, move.provider, lease, work.now)


@_apply.register
def _(move: m.NoteAward, work: _Work) -> None:
    instants = {name: None if at is None else _instant(at) for name, at in move.instants.items()}
    awards.note(work.tx, work.job.id, move.fence, instants, move.facts)
    if instants.get("opened_at") is not None:
        award = awards.under_fence(work.tx, work.job.id, move.fence)
        work.job.epoch = award.epoch if award is not None else work.job.epoch


@_apply.register
def _(move: m.CountRestart, work: _Work) -> None:
    award = awards.under_fence(work.tx, work.job.id, move.fence)
    if award is not None:
        if move.host_fault:
            faults = int(award.facts.get("host_faults", 0)) + 1
            awards.note(work.tx, work.job.id, move.fence, {}, {"host_faults": faults})
            awards.forfeit(work.tx, work.job.id, move.fence)
        else:
            award.restarts += 1
        awards.settle_exit(work.tx, work.job.id, move.fence)


@_apply.register
def _(move: m.SignFinal, work: _Work) -> None:
    award = awards.under_fence(work.tx, work.job.id, move.fence)
    if award is not None:
        sign(work.tx, work.desk.watcher, award, work.job, final=True, in_full=move.in_full, now=work.now)


@_apply.register
def _(move: m.EndAward, work: _Work) -> None:
    _end(work, move.fence, move.outcome, recovery=move.recovery)


@_apply.register
def _(move: m.IssueCommand, work: _Work) -> None:
    deadline = _instant(work.now + move.timeout_s)
    commands.issue(work.tx, move.node, work.job.id, move.fence, move.step, move.kind, dict(move.payload), deadline)


@_apply.register
def _(move: m.EnqueueOpen, work: _Work) -> None:
    award = awards.under_fence(work.tx, work.job.id, move.fence)
    assert award is not None
    order, bid = Order(**work.job.order), Bid(**award.bid)
    opening = work.desk.calls.open(order, bid, award.bid_signature, award.rate_per_hour)
    award.settle = ""
    if move.settle_lease is not None:
        award.settle = move.settle_how
        opening = work.desk.calls.multicall([_settling(work, move.settle_lease, move.settle_how), opening])
    _enqueue(work, move.action_key, opening)


@_apply.register
def _(move: m.EnqueueSettle, work: _Work) -> None:
    _enqueue(work, move.action_key, _settling(work, move.lease_id, move.how))


@_apply.register
def _(move: m.RewindHead, work: _Work) -> None:
    jobs.rewind_head(work.tx, work.job, move.reason, move.seq, move.manifest, corrupt=move.corrupt)


def _reserve(move: m.OpenAuction, work: _Work) -> Reserve:
    """What the auction's winner is paid at most, by what is known before anybody is asked."""
    resources = jobspec.from_dict(work.job.spec).resources
    needs = restores.requirements(work.tx, work.job, move.plan, move.mode) if resources.gpus else None
    gpu_model = str((needs or {}).get("gpu_model", ""))
    return fix(
        prices.observed(work.tx, class_of(resources), gpu_model, work.now),
        resources,
        work.desk.policy.posted,
        maximum=move.maximum,
        window_s=move.window_s,
        rise_s=move.rise_s,
        last=move.last,
    )


def _end(work: _Work, fence: int, outcome: str, *, recovery: bool) -> None:
    ended = awards.end(work.tx, work.job.id, fence, outcome, work.at)
    if ended is not None and recovery and ended.started_at is not None:
        work.job.recoveries += 1


def _settling(work: _Work, lease: str, how: m.SettleHow) -> Call:
    row = receipts.newest(work.tx, lease)
    receipt, signature = (receipts.terms_of(row), row.signature) if row is not None else (None, "0x")
    settle = work.desk.calls.suspend if how == "suspend" else work.desk.calls.close
    return settle(terms.awarded(work.tx, work.job, lease), receipt, signature)


def _enqueue(work: _Work, action_key: str, call: Call) -> None:
    journal.enqueue(
        work.tx,
        action_key=action_key,
        sender=work.desk.watcher.address,
        to=call.to,
        data=call.data,
        call=call.name,
        job_id=work.job.id,
    )


def _instant(at: float) -> datetime:
    return datetime.fromtimestamp(at, UTC)
