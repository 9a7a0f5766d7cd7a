"""Events → derived rows, one pure function per event. A lease's moves go through the domain's table, so an event that
the contract can't have emitted is a Contradiction and not a wrong row."""

from collections.abc import Callable
from functools import cache
from typing import Any

from everlease.chain._generated import events as ev
from everlease.chain._generated.enums import CreditReason
from everlease.domain.lease import IllegalLeaseAction, LeaseAction, LeaseState, next_state
from everlease.domain.mirrored import MirroredEvent
from indexer.decoding import payment_id
from indexer.records import Claimable, Escrow, Lease, NodeAuth, Payment, Provider, Slash, replace
from indexer.workspace import Contradiction, Workspace

Reducer = Callable[[Workspace, MirroredEvent, Any], None]
_REDUCERS: dict[type[Any], Reducer] = {}


def reduce(rows: Workspace, at: MirroredEvent, event: ev.Event) -> None:
    """Let ``event`` (emitted ``at``) change ``rows``; raises Contradiction."""
    try:
        _REDUCERS[type(event)](rows, at, event)
    except (IllegalLeaseAction, Contradiction) as error:
        raise Contradiction(f"{at.name} in block {at.block_number}, log {at.log_index}: {error}") from error


def _on(kind: type[Any]) -> Callable[[Reducer], Reducer]:
    def register(reducer: Reducer) -> Reducer:
        _REDUCERS[kind] = reducer
        return reducer

    return register


def _hex(value: bytes) -> str:
    return "0x" + value.hex()


def _paid(at: MirroredEvent, account: str, reason: str, amount: int) -> Payment:
    return Payment(
        payment_id(at), account, reason, amount, at.job_id, at.lease_id, at.block_time, at.tx_hash, at.block_number
    )


def _lease(rows: Workspace, event: Any, action: LeaseAction | None = None) -> Lease:
    """The lease that an event is about, moved through the table."""
    found = rows.get(Lease, _hex(event.lease_id))
    if action is None:
        return found
    return replace(found, state=_moved(found.state, action))


@cache
def _moved(state: str, action: LeaseAction) -> str:
    return next_state(LeaseState(state), action).value


def _provider(rows: Workspace, address: str, at: MirroredEvent, **changes: Any) -> Provider:
    found = rows.find(Provider, address) or Provider(address, at.block_number)
    changed = replace(found, block=at.block_number, **changes)
    rows.put(changed)
    return changed


# -- a job's escrow --


@_on(ev.JobFunded)
def _job_funded(rows: Workspace, at: MirroredEvent, event: ev.JobFunded) -> None:
    rows.put(
        Escrow(
            job_id=_hex(event.job_id),
            tenant=event.tenant,
            watcher=event.watcher,
            job_spec=_hex(event.job_spec),
            max_rate_per_hour=event.max_rate_per_hour,
            deposit=event.deposit,
            min_collateral=event.min_collateral,
            max_silence=event.max_silence,
            max_epochs=event.max_epochs,
            epoch_fee=event.epoch_fee,
            deadline=event.deadline,
            nonce=event.nonce,
            balance=event.deposit,
            deposited=event.deposit,
            funded_at=at.block_time,
            block=at.block_number,
        )
    )
    rows.put(_paid(at, event.tenant, "DEPOSIT", event.deposit))


@_on(ev.JobToppedUp)
def _job_topped_up(rows: Workspace, at: MirroredEvent, event: ev.JobToppedUp) -> None:
    job = rows.get(Escrow, _hex(event.job_id))
    deposited = job.deposited + event.amount
    rows.put(replace(job, balance=job.balance + event.amount, deposited=deposited, block=at.block_number))
    rows.put(_paid(at, event.payer, "TOP_UP", event.amount))


@_on(ev.JobCancelled)
def _job_cancelled(rows: Workspace, at: MirroredEvent, event: ev.JobCancelled) -> None:
    rows.put(replace(rows.get(Escrow, _hex(event.job_id)), cancelled=True, block=at.block_number))


@_on(ev.OrderRevoked)
def _order_revoked(rows: Workspace, at: MirroredEvent, event: ev.OrderRevoked) -> None:
    """Anyone can emit it for any id, so no row is made of it; the event itself is kept."""


@_on(ev.JobExtended)
def _job_extended(rows: Workspace, at: MirroredEvent, event: ev.JobExtended) -> None:
    rows.put(
        replace(
            rows.get(Escrow, _hex(event.job_id)),
            deadline=event.deadline,
            max_epochs=event.max_epochs,
            max_rate_per_hour=event.max_rate_per_hour,
            block=at.block_number,
        )
    )


@_on(ev.Refunded)
def _refunded(rows: Workspace, at: MirroredEvent, event: ev.Refunded) -> None:
    job = rows.get(Escrow, _hex(event.job_id))
    balance, refunded = job.balance - event.amount, job.refunded + event.amount
    rows.put(replace(job, balance=balance, refunded=refunded, block=at.block_number))


# -- leases --


@_on(ev.LeaseOpened)
def _lease_opened(rows: Workspace, at: MirroredEvent, event: ev.LeaseOpened) -> None:
    lease_id = _hex(event.lease_id)
    next_state(LeaseState.NONE if rows.find(Lease, lease_id) is None else LeaseState.ACTIVE, LeaseAction.OPEN)
    rows.put(
        Lease(
            lease_id=lease_id,
            job_id=_hex(event.job_id),
            epoch=event.epoch,
            provider=event.provider,
            node=event.node,
            rate=event.rate,
            collateral=event.collateral,
            reserve=event.reserve,
            bond=event.bond,
            started_at=event.started_at,
            ends_at=event.ends_at,
            closable_at=event.closable_at,
            seen_at=event.started_at,
            bid_hash=_hex(event.bid_hash),
            slot=event.slot,
            tx_hash=at.tx_hash,
            block=at.block_number,
        )
    )
    job = rows.get(Escrow, _hex(event.job_id))
    rows.put(
        replace(
            job,
            balance=job.balance - event.epoch_fee,
            reserved=job.reserved + event.reserve + event.bond,
            epochs=event.epoch,
            active_lease=lease_id,
            block=at.block_number,
        )
    )
    provider = _provider(rows, event.provider, at)
    rows.put(replace(provider, leases=provider.leases + 1))


@_on(ev.LeaseCollected)
def _lease_collected(rows: Workspace, at: MirroredEvent, event: ev.LeaseCollected) -> None:
    lease = _lease(rows, event, LeaseAction.COLLECT)
    job = rows.get(Escrow, lease.job_id)
    rows.put(
        replace(
            job,
            balance=job.balance - event.amount,
            reserved=job.reserved - lease.reserve + event.reserve,
            paid=job.paid + event.amount,
            block=at.block_number,
        )
    )
    rows.put(
        replace(
            lease,
            earned=event.earned,
            seen_at=event.seen_at,
            seq=event.seq,
            paid=lease.paid + event.amount,
            fee=lease.fee + event.fee,
            reserve=event.reserve,
            block=at.block_number,
        )
    )
    provider = _provider(rows, lease.provider, at)
    rows.put(replace(provider, earned=provider.earned + event.amount - event.fee))


@_on(ev.LeaseNotice)
def _lease_notice(rows: Workspace, at: MirroredEvent, event: ev.LeaseNotice) -> None:
    lease = _lease(rows, event, LeaseAction.NOTICE)
    lease = replace(lease, ends_at=event.ends_at, closable_at=event.closable_at)
    rows.put(replace(lease, noticed=True, block=at.block_number))


@_on(ev.LeaseSuspended)
def _lease_suspended(rows: Workspace, at: MirroredEvent, event: ev.LeaseSuspended) -> None:
    lease = _lease(rows, event, LeaseAction.SUSPEND)
    job = rows.get(Escrow, lease.job_id)
    reserved = job.reserved - lease.reserve + event.reserve
    rows.put(replace(job, reserved=reserved, active_lease=None, block=at.block_number))
    rows.put(
        replace(
            lease,
            reserve=event.reserve,
            suspended_at=event.suspended_at,
            answer_by=event.answer_by,
            block=at.block_number,
        )
    )


def _end(rows: Workspace, at: MirroredEvent, lease: Lease, *, released: int, spent: int = 0, gained: int = 0) -> None:
    """A lease is over: ``released`` is free escrow again, ``spent`` of its bond left, ``gained`` came of a slash."""
    job = rows.get(Escrow, lease.job_id)
    rows.put(
        replace(
            job,
            balance=job.balance - spent + gained,
            reserved=job.reserved - released - spent,
            active_lease=None if job.active_lease == lease.lease_id else job.active_lease,
            block=at.block_number,
        )
    )
    rows.put(replace(lease, reserve=0, bond=0, ended_at=at.block_time, block=at.block_number))


@_on(ev.LeaseClosed)
def _lease_closed(rows: Workspace, at: MirroredEvent, event: ev.LeaseClosed) -> None:
    _end(rows, at, _lease(rows, event, LeaseAction.CLOSE), released=event.released)


@_on(ev.LeaseCleared)
def _lease_cleared(rows: Workspace, at: MirroredEvent, event: ev.LeaseCleared) -> None:
    lease = _lease(rows, event, LeaseAction.ANSWER_PROVEN)
    _end(rows, at, lease, released=event.released, spent=event.bond)


@_on(ev.LeaseFailed)
def _lease_failed(rows: Workspace, at: MirroredEvent, event: ev.LeaseFailed) -> None:
    action = LeaseAction.ANSWER_BARE if event.answered else LeaseAction.FAIL
    lease = replace(_lease(rows, event, action), slashed=event.slashed)
    _end(rows, at, lease, released=event.released, gained=event.to_job)
    provider = _provider(rows, lease.provider, at)
    rows.put(replace(provider, failed=provider.failed + 1))
    rows.put(
        Slash(
            lease_id=lease.lease_id,
            job_id=lease.job_id,
            provider=lease.provider,
            node=lease.node,
            caller=event.caller,
            answered=event.answered,
            slashed=event.slashed,
            to_job=event.to_job,
            to_caller=event.to_caller,
            to_insurance=event.to_insurance,
            at=at.block_time,
            tx_hash=at.tx_hash,
            block=at.block_number,
        )
    )


# -- credits --


@_on(ev.Credited)
def _credited(rows: Workspace, at: MirroredEvent, event: ev.Credited) -> None:
    found = rows.find(Claimable, event.account) or Claimable(event.account, at.block_number)
    amount, credited = found.amount + event.amount, found.credited + event.amount
    rows.put(replace(found, amount=amount, credited=credited, block=at.block_number))
    rows.put(_paid(at, event.account, CreditReason(event.reason).name, event.amount))


@_on(ev.Withdrawn)
def _withdrawn(rows: Workspace, at: MirroredEvent, event: ev.Withdrawn) -> None:
    found = rows.get(Claimable, event.account)
    amount, withdrawn = found.amount - event.amount, found.withdrawn + event.amount
    rows.put(replace(found, amount=amount, withdrawn=withdrawn, block=at.block_number))
    rows.put(_paid(at, event.account, "WITHDRAWAL", event.amount))


# -- stake and nodes --


@_on(ev.ProviderStaked)
def _staked(rows: Workspace, at: MirroredEvent, event: ev.ProviderStaked) -> None:
    _provider(rows, event.provider, at, staked=event.staked)


@_on(ev.UnstakeRequested)
def _unstake_requested(rows: Workspace, at: MirroredEvent, event: ev.UnstakeRequested) -> None:
    _provider(rows, event.provider, at, unbonding=event.unbonding, unbonds_at=event.unbonds_at)


@_on(ev.StakeWithdrawn)
def _stake_withdrawn(rows: Workspace, at: MirroredEvent, event: ev.StakeWithdrawn) -> None:
    _provider(rows, event.provider, at, staked=event.staked, unbonding=event.unbonding)


@_on(ev.StakeLocked)
def _stake_locked(rows: Workspace, at: MirroredEvent, event: ev.StakeLocked) -> None:
    _provider(rows, event.provider, at, locked=event.locked)


@_on(ev.StakeUnlocked)
def _stake_unlocked(rows: Workspace, at: MirroredEvent, event: ev.StakeUnlocked) -> None:
    _provider(rows, event.provider, at, locked=event.locked)


@_on(ev.StakeSlashed)
def _stake_slashed(rows: Workspace, at: MirroredEvent, event: ev.StakeSlashed) -> None:
    found = _provider(rows, event.provider, at, staked=event.staked, locked=event.locked, unbonding=event.unbonding)
    rows.put(replace(found, slashed=found.slashed + event.amount))


@_on(ev.MetadataSet)
def _metadata_set(rows: Workspace, at: MirroredEvent, event: ev.MetadataSet) -> None:
    _provider(rows, event.provider, at, metadata_cid=event.cid)


@_on(ev.NodeAuthorised)
def _node_authorised(rows: Workspace, at: MirroredEvent, event: ev.NodeAuthorised) -> None:
    rows.put(NodeAuth(event.node, event.provider, True, at.block_number))


@_on(ev.NodeRevoked)
def _node_revoked(rows: Workspace, at: MirroredEvent, event: ev.NodeRevoked) -> None:
    rows.put(NodeAuth(event.node, event.provider, False, at.block_number))


HANDLED = frozenset(_REDUCERS)
"""Event classes that have a reducer; a test compares them with the contracts'."""
