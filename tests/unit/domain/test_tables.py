"""Every state × event of the job's table, every state × action of the lease's; and what both promise."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everlease.domain import job, lease
from everlease.domain.job import JobEvent, JobState
from everlease.domain.lease import LeaseAction, LeaseState

E, S = JobEvent, JobState

LEGAL = {
    S.PENDING: {E.FUNDED: S.AUCTIONING},
    S.AUCTIONING: {E.AWARDED: S.ALLOCATING, E.NOBODY_BID: S.WAITING_CAPACITY, E.HELD_BACK: S.WAITING_CAPACITY},
    S.WAITING_CAPACITY: {
        E.CAPACITY_TIMER: S.AUCTIONING,
        E.HIBERNATE_REQUESTED: S.HIBERNATED,
        E.RESUME_REQUESTED: S.AUCTIONING,
    },
    S.ALLOCATING: {
        E.OPENED: S.PREPARING,
        E.OPEN_FAILED: S.AUCTIONING,
        E.PREPARE_FAILED: S.AUCTIONING,
        E.LOST: S.RECOVERING,
        E.HOST_STOPPED: S.AUCTIONING,
        E.VOIDED: S.AUCTIONING,
    },
    S.PREPARING: {
        E.PREPARE_FAILED: S.AUCTIONING,
        E.RESTORE_BEGAN: S.RESTORING,
        E.STARTED: S.RUNNING,
        E.LOST: S.RECOVERING,
        E.HOST_STOPPED: S.AUCTIONING,
        E.VOIDED: S.AUCTIONING,
    },
    S.RESTORING: {
        E.STARTED: S.RUNNING,
        E.RESTORE_FAILED: S.AUCTIONING,
        E.LOST: S.RECOVERING,
        E.HOST_STOPPED: S.AUCTIONING,
        E.VOIDED: S.AUCTIONING,
    },
    S.RUNNING: {
        E.MIGRATE_REQUESTED: S.MIGRATING,
        E.HIBERNATE_REQUESTED: S.HIBERNATING,
        E.RESTARTED: S.RUNNING,
        E.MOVED: S.AUCTIONING,
        E.EXITED_OK: S.SUCCEEDED,
        E.LOST: S.RECOVERING,
        E.HOST_STOPPED: S.AUCTIONING,
        E.VOIDED: S.AUCTIONING,
    },
    S.RECOVERING: {E.REAUCTIONED: S.AUCTIONING},
    S.MIGRATING: {
        E.AWARDED: S.ALLOCATING,
        E.MIGRATE_ABANDONED: S.RUNNING,
        E.EXITED_OK: S.SUCCEEDED,
        E.LOST: S.RECOVERING,
        E.HOST_STOPPED: S.AUCTIONING,
        E.VOIDED: S.AUCTIONING,
    },
    S.HIBERNATING: {
        E.HIBERNATED: S.HIBERNATED,
        E.HIBERNATE_ABANDONED: S.RUNNING,
        E.EXITED_OK: S.SUCCEEDED,
        E.LOST: S.HIBERNATED,
        E.HOST_STOPPED: S.HIBERNATED,
        E.VOIDED: S.AUCTIONING,
    },
    S.HIBERNATED: {E.RESUME_REQUESTED: S.AUCTIONING},
    S.CANCELLING: {
        E.STOPPED: S.CANCELLED,
        E.LOST: S.CANCELLED,
        E.VOIDED: S.CANCELLED,
        E.EXITED_OK: S.SUCCEEDED,
    },
    S.SUCCEEDED: {E.RESUME_REQUESTED: S.AUCTIONING},
    S.FAILED: {E.RESUME_REQUESTED: S.AUCTIONING},
    S.CANCELLED: {},
    S.EXHAUSTED: {E.TOPPED_UP: S.AUCTIONING, E.RESUME_REQUESTED: S.AUCTIONING},
    S.PARKED: {E.RESUME_REQUESTED: S.AUCTIONING},
}
ANYWHERE = {E.CANCEL_REQUESTED: S.CANCELLING, E.GAVE_UP: S.FAILED}
NO_HOST = {S.AUCTIONING, S.WAITING_CAPACITY, S.RECOVERING}
FUNDS_MATTER = NO_HOST | {S.ALLOCATING, S.PREPARING, S.RESTORING, S.RUNNING, S.MIGRATING, S.HIBERNATING}


def expected(state: JobState, event: JobEvent) -> JobState | None:
    if event is E.FUNDS_OUT:
        return S.EXHAUSTED if state in FUNDS_MATTER else None
    if event is E.PARKED:
        return S.PARKED if state in NO_HOST else None
    if event in ANYWHERE:
        return None if state in job.ENDED | {S.CANCELLING} else ANYWHERE[event]
    return LEGAL[state].get(event)


@pytest.mark.parametrize(("state", "event"), list(itertools.product(JobState, JobEvent)))
def test_every_job_state_and_event(state: JobState, event: JobEvent) -> None:
    wanted = expected(state, event)
    assert job.allows(state, event) == (wanted is not None)
    if wanted is not None:
        assert job.next_state(state, event) is wanted
        return
    with pytest.raises(job.IllegalJobEvent) as raised:
        job.next_state(state, event)
    assert (raised.value.state, raised.value.event) == (state, event)
    assert not raised.value.retryable


@given(st.lists(st.sampled_from(JobEvent), max_size=60))
def test_a_job_that_ended_goes_on_by_its_tenants_resume_alone(events: list[JobEvent]) -> None:
    state = JobState.PENDING
    for event in events:
        if job.allows(state, event):
            assert state not in job.ENDED or (event is E.RESUME_REQUESTED and state is not S.CANCELLED)
            state = job.next_state(state, event)


def test_every_job_state_can_be_reached_and_left_for_an_end() -> None:
    moves = {(s, job.next_state(s, e)) for s in S for e in E if job.allows(s, e)}
    reached = {S.PENDING}
    while grown := {b for a, b in moves if a in reached} - reached:
        reached |= grown
    assert reached == set(S)
    assert all(job.allows(state, E.GAVE_UP) or state is S.CANCELLING for state in set(S) - job.ENDED)


LEASE_MOVES = {
    (LeaseState.NONE, LeaseAction.OPEN): LeaseState.ACTIVE,
    (LeaseState.ACTIVE, LeaseAction.COLLECT): LeaseState.ACTIVE,
    (LeaseState.ACTIVE, LeaseAction.NOTICE): LeaseState.ACTIVE,
    (LeaseState.ACTIVE, LeaseAction.CLOSE): LeaseState.CLOSED,
    (LeaseState.ACTIVE, LeaseAction.SUSPEND): LeaseState.SUSPENDED,
    (LeaseState.SUSPENDED, LeaseAction.COLLECT): LeaseState.SUSPENDED,
    (LeaseState.SUSPENDED, LeaseAction.ANSWER_PROVEN): LeaseState.CLEARED,
    (LeaseState.SUSPENDED, LeaseAction.ANSWER_BARE): LeaseState.FAILED,
    (LeaseState.SUSPENDED, LeaseAction.FAIL): LeaseState.FAILED,
}


@pytest.mark.parametrize(("state", "action"), list(itertools.product(LeaseState, LeaseAction)))
def test_every_lease_state_and_action(state: LeaseState, action: LeaseAction) -> None:
    wanted = LEASE_MOVES.get((state, action))
    assert lease.allows(state, action) == (wanted is not None)
    if wanted is not None:
        assert lease.next_state(state, action) is wanted
    else:
        with pytest.raises(lease.IllegalLeaseAction):
            lease.next_state(state, action)


def test_a_lease_that_ended_takes_nothing() -> None:
    assert not any(lease.allows(state, action) for state in lease.ENDED for action in LeaseAction)
