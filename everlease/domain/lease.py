"""The lease's one state table. Contract, indexer and recovery are tested against it, every state × action pair."""

from enum import StrEnum


class LeaseState(StrEnum):
    """A lease as LeaseEscrow knows it; the order of members is the contract's enum order."""

    NONE = "NONE"
    ACTIVE = "ACTIVE"
    CLOSED = "CLOSED"
    SUSPENDED = "SUSPENDED"
    CLEARED = "CLEARED"
    FAILED = "FAILED"


class LeaseAction(StrEnum):
    """What somebody may try on a lease. ANSWER_PROVEN brings a receipt that disproves the silence, ANSWER_BARE none."""

    OPEN = "open"
    COLLECT = "collect"
    NOTICE = "notice"
    CLOSE = "close"
    SUSPEND = "suspend"
    ANSWER_PROVEN = "answer_proven"
    ANSWER_BARE = "answer_bare"
    FAIL = "fail"


class IllegalLeaseAction(Exception):
    """The table has no such move."""

    retryable = False

    def __init__(self, state: LeaseState, action: LeaseAction) -> None:
        super().__init__(f"a lease that is {state} takes no {action}")
        self.state = state
        self.action = action


_TABLE: dict[tuple[LeaseState, LeaseAction], LeaseState] = {
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

ENDED = frozenset({LeaseState.CLOSED, LeaseState.CLEARED, LeaseState.FAILED})


def next_state(state: LeaseState, action: LeaseAction) -> LeaseState:
    """The state after ``action``; raises IllegalLeaseAction where the contract would revert."""
    try:
        return _TABLE[state, action]
    except KeyError:
        raise IllegalLeaseAction(state, action) from None


def allows(state: LeaseState, action: LeaseAction) -> bool:
    """Whether the table has this move."""
    return (state, action) in _TABLE
