"""What must happen though no event says so: time passed, or a broker lost the task."""

from collections.abc import Iterator
from datetime import UTC, datetime

import structlog

from everlease.chain.contracts import Call
from everlease.chain.typed_data import lease_id
from everlease.db import (
    Database,
    Tx,
    awards,
    commands,
    faults,
    jobs,
    journal,
    outages,
    outbox,
    prices,
    receipts,
    retention,
    timers,
)
from everlease.domain.job import JobState
from everlease.domain.retention import Bounds
from everlease.domain.terms import LeaseParams
from recovery.apply import Desk
from recovery.planner.leases import backoff_s
from recovery.receipts import sign

log = structlog.get_logger()
_OUTBOX_KEPT_S = 86_400
_OUTAGES_KEPT_S = 30 * 86_400
"""A lease may be suspended long after its award ended, and is judged within its answer window then."""


def _instant(at: float) -> datetime:
    return datetime.fromtimestamp(at, UTC)


def job_ids(database: Database, now: float) -> Iterator[str]:
    """Every job that goes on, and those that ended with a lease still ACTIVE; a page at a time."""
    after = ""
    while True:
        with database.transaction() as tx:
            page = timers.unfinished(tx, _instant(now), after)
        yield from page
        if not page:
            break
        after = page[-1]
    with database.transaction() as tx:
        unsettled = timers.unsettled(tx)
    yield from unsettled


def ids_in(database: Database, state: JobState) -> list[str]:
    """Jobs in one state."""
    with database.transaction() as tx:
        return list(timers.in_state(tx, state))


def expire_commands(database: Database, now: float) -> int:
    """Fail the commands that no node answered in time; their jobs hear of it by ``command.finished``."""
    with database.transaction() as tx:
        return len(commands.expire(tx, _instant(now)))


def settle_leases(desk: Desk) -> int:
    """Journal what the contract leaves to anyone after its deadlines: fail, close, refund. Returns how many."""
    watcher, now = desk.watcher.address, int(desk.clock())
    with desk.database.transaction() as tx:
        chain_now = min(now, timers.chain_time(tx) or 0)
        calls: list[tuple[str, Call, str]] = []
        for params in timers.failable(tx, watcher, chain_now):
            calls.append((f"fail/{lease_id(params)}", desk.calls.fail(params), params.job_id))
        for row in timers.refundable(tx, watcher, chain_now):
            calls.append((f"refund/{row.job_id}/{row.block}", desk.calls.refund(row.order), row.job_id))
        journaled = sum(_enqueue(tx, desk, *call) for call in calls)
        closable = timers.closable(tx, watcher, chain_now)
    for params in closable:
        # Each by itself: it locks the award.
        with desk.database.transaction() as tx:
            call = _close(tx, desk, params)
            journaled += call is not None and _enqueue(tx, desk, f"close/{lease_id(params)}", call, params.job_id)
    return journaled


def settle_prices(database: Database, now: float) -> int:
    """Take over what leases that settled for good were paid, for the reserves to come; returns how many."""
    with database.transaction() as tx:
        return prices.settle(tx, now)


def tidy(database: Database, now: float, bounds: Bounds, terms: retention.Terms) -> int:
    """Condemn checkpoints that nothing can want, forget old outbox events and outages; returns how many checkpoints."""
    with database.transaction() as tx:
        outbox.purge_sent(tx, _instant(now - _OUTBOX_KEPT_S))
        outages.forget(tx, now - _OUTAGES_KEPT_S)
        found = retention.jobs_to_tidy(tx, bounds, _instant(now))
    condemned = 0
    for job_id in found:
        with database.transaction() as tx:
            condemned += retention.condemn(tx, job_id, bounds, terms, _instant(now))
    return condemned


def _close(tx: Tx, desk: Desk, params: LeaseParams) -> Call | None:
    """Whoever served to the lease's own end is paid to it, also where we were away when it came; a host that was lost
    before is paid what was saved. None where no final receipt came of it.
    """
    jobs.lock(tx, params.job_id)
    award = faults.award_under(tx, lease_id(params))
    held = awards.locked(tx, award.job_id, award.fence) if award is not None else None
    if held is not None:
        lasts = held[0].ended_at is None
        sign(tx, desk.watcher, *held, final=True, in_full=lasts, now=desk.clock())
    row = receipts.newest(tx, lease_id(params))
    if row is None:
        return desk.calls.close(params)
    return desk.calls.close(params, receipts.terms_of(row), row.signature) if row.final else None


def _enqueue(tx: Tx, desk: Desk, action: str, call: Call, job_id: str) -> bool:
    """Journal once per action, and again after a failure: later each time, up to an hour, and for as long as it is due.

    True where a transaction was journaled.
    """
    tries = journal.tries(tx, job_id, action)
    if tries and tries[-1].state != "failed":
        return False
    if tries and desk.clock() < tries[-1].created_at.timestamp() + backoff_s(len(tries)):
        return False
    if len(tries) >= desk.policy.max_attempts:
        log.error("settlement.failing", action=action, tries=len(tries), error=tries[-1].error)
    journal.enqueue(
        tx,
        action_key=f"{action}/{len(tries)}",
        sender=desk.watcher.address,
        to=call.to,
        data=call.data,
        call=call.name,
        job_id=job_id,
    )
    return True
