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


def _paid(at: MirroredEvent, account: str, reason: str, amount: int) -> Payment:
    return Payment(
        payment_id(at), account, reason, amount, at.job_id, at.lease_id, at.block_time, at.tx_hash, at.block_number
    )


def _credit(rows: Workspace, at: MirroredEvent, account: str, amount: int, reason: str) -> None:
    """Let ``account`` have ``amount`` more to withdraw."""
    if amount == 0:
        return
    found = rows.find(Claimable, account) or Claimable(account, at.block_number)
    held, credited = found.amount + amount, found.credited + amount
    rows.put(replace(found, amount=held, credited=credited, block=at.block_number))
    rows.put(_paid(at, account, reason, amount))


def _lease(rows: Workspace, event: Any, action: LeaseAction | None = None) -> Lease:
    """The lease that an event is about, moved through the table."""
    found = rows.get(Lease, event.lease_id)
    if action is None:
        return found
    return replace(found, state=_moved(found.state, action))


@cache
def _moved(state: str, action: LeaseAction) -> str:
    return next_state(LeaseState(state), action).value


def _find_provider(rows: Workspace, address: str, at: MirroredEvent) -> Provider:
    return rows.find(Provider, address) or Provider(address, at.block_number)


def _provider(rows: Workspace, address: str, at: MirroredEvent, **changes: Any) -> Provider:
    changed = replace(_find_provider(rows, address, at), block=at.block_number, **changes)
    rows.put(changed)
    return changed


# -- a job's escrow --


@_on(ev.JobFunded)
def _job_funded(rows: Workspace, at: MirroredEvent, event: ev.JobFunded) -> None:
    rows.put(
        Escrow(
            job_id=event.job_id,
            tenant=event.tenant,
            watcher=event.watcher,
            job_spec=event.job_spec,
            max_rate_per_hour=event.max_rate_per_hour,
            deposit=event.deposit,
            min_collateral=event.min_collateral,
            max_silence=event.max_silence,
            max_epochs=event.max_epochs,
            epoch_fee=event.epoch_fee,
            deadline=event.deadline,
            order_deadline=event.deadline,
            order_max_epochs=event.max_epochs,
            order_max_rate=event.max_rate_per_hour,
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
    job = rows.get(Escrow, event.job_id)
    deposited = job.deposited + event.amount
    rows.put(replace(job, balance=job.balance + event.amount, deposited=deposited, block=at.block_number))
    rows.put(_paid(at, event.payer, "TOP_UP", event.amount))


@_on(ev.JobCancelled)
def _job_cancelled(rows: Workspace, at: MirroredEvent, event: ev.JobCancelled) -> None:
    rows.put(replace(rows.get(Escrow, event.job_id), cancelled=True, block=at.block_number))


@_on(ev.OrderRevoked)
def _order_revoked(rows: Workspace, at: MirroredEvent, event: ev.OrderRevoked) -> None:
    """The order was never funded, so there is no row; the event itself is kept."""


@_on(ev.JobExtended)
def _job_extended(rows: Workspace, at: MirroredEvent, event: ev.JobExtended) -> None:
    rows.put(
        replace(
            rows.get(Escrow, event.job_id),
            deadline=event.deadline,
            max_epochs=event.max_epochs,
            max_rate_per_hour=event.max_rate_per_hour,
            block=at.block_number,
        )
    )


@_on(ev.Refunded)
def _refunded(rows: Workspace, at: MirroredEvent, event: ev.Refunded) -> None:
    job = rows.get(Escrow, event.job_id)
    balance, refunded = job.balance - event.amount, job.refunded + event.amount
    rows.put(replace(job, balance=balance, refunded=refunded, block=at.block_number))


# -- leases --


@_on(ev.LeaseOpened)
def _lease_opened(rows: Workspace, at: MirroredEvent, event: ev.LeaseOpened) -> None:
    lease_id = event.lease_id
    next_state(LeaseState.NONE if rows.find(Lease, lease_id) is None else LeaseState.ACTIVE, LeaseAction.OPEN)
    rows.put(
        Lease(
            lease_id=lease_id,
            job_id=event.job_id,
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
            slot=event.slot,
            tx_hash=at.tx_hash,
            block=at.block_number,
        )
    )
    job = rows.get(Escrow, event.job_id)
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
    provider = _find_provider(rows, event.provider, at)
    _provider(rows, event.provider, at, leases=provider.leases + 1, locked=provider.locked + event.collateral)


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
            fees=job.fees + event.fee,
            block=at.block_number,
        )
    )
    rows.put(
        replace(
            lease,
            earned=event.earned,
            seen_at=event.seen_at,
            seq=max(lease.seq, event.seq),
            paid=lease.paid + event.amount,
            fee=lease.fee + event.fee,
            reserve=event.reserve,
            block=at.block_number,
        )
    )
    earned = _find_provider(rows, lease.provider, at).earned + event.amount - event.fee
    _provider(rows, lease.provider, at, earned=earned)
    _credit(rows, at, lease.provider, event.amount - event.fee, "SERVICE")


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


def _end(rows: Workspace, at: MirroredEvent, lease: Lease, *, spent: int = 0, gained: int = 0) -> None:
    """A lease is over: its reserve and bond are free again, less ``spent`` of them; ``gained`` came of a slash."""
    job = rows.get(Escrow, lease.job_id)
    rows.put(
        replace(
            job,
            balance=job.balance - spent + gained,
            reserved=job.reserved - lease.reserve - lease.bond,
            active_lease=None if job.active_lease == lease.lease_id else job.active_lease,
            block=at.block_number,
        )
    )
    rows.put(replace(lease, reserve=0, bond=0, ended_at=at.block_time, block=at.block_number))
    locked = _find_provider(rows, lease.provider, at).locked - lease.collateral
    _provider(rows, lease.provider, at, locked=locked)


@_on(ev.LeaseClosed)
def _lease_closed(rows: Workspace, at: MirroredEvent, event: ev.LeaseClosed) -> None:
    _end(rows, at, _lease(rows, event, LeaseAction.CLOSE))


@_on(ev.LeaseCleared)
def _lease_cleared(rows: Workspace, at: MirroredEvent, event: ev.LeaseCleared) -> None:
    lease = _lease(rows, event, LeaseAction.ANSWER_PROVEN)
    _end(rows, at, lease, spent=lease.bond)
    _credit(rows, at, lease.provider, lease.bond, "BOND")


@_on(ev.LeaseFailed)
def _lease_failed(rows: Workspace, at: MirroredEvent, event: ev.LeaseFailed) -> None:
    action = LeaseAction.ANSWER_BARE if event.answered else LeaseAction.FAIL
    slashed = event.to_job + event.to_caller + event.to_insurance
    lease = replace(_lease(rows, event, action), slashed=slashed)
    _end(rows, at, lease, gained=event.to_job)
    _provider(rows, lease.provider, at, failed=_find_provider(rows, lease.provider, at).failed + 1)
    rows.put(
        Slash(
            lease_id=lease.lease_id,
            job_id=lease.job_id,
            provider=lease.provider,
            node=lease.node,
            caller=event.caller,
            answered=event.answered,
            slashed=slashed,
            to_job=event.to_job,
            to_caller=event.to_caller,
            to_insurance=event.to_insurance,
            at=at.block_time,
            tx_hash=at.tx_hash,
            block=at.block_number,
        )
    )
    _credit(rows, at, event.caller, event.to_caller, "FAIL_REWARD")


# -- credits --


@_on(ev.Credited)
def _credited(rows: Workspace, at: MirroredEvent, event: ev.Credited) -> None:
    _credit(rows, at, event.account, event.amount, CreditReason(event.reason).name)


@_on(ev.FeesSwept)
def _fees_swept(rows: Workspace, at: MirroredEvent, event: ev.FeesSwept) -> None:
    job = rows.get(Escrow, event.job_id)
    rows.put(replace(job, fees=job.fees - event.amount, block=at.block_number))


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


@_on(ev.StakeSlashed)
def _stake_slashed(rows: Workspace, at: MirroredEvent, event: ev.StakeSlashed) -> None:
    found = _provider(rows, event.provider, at, staked=event.staked)
    unbonding = min(found.unbonding, event.staked)
    rows.put(replace(found, slashed=found.slashed + event.amount, unbonding=unbonding))


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
