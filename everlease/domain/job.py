"""The job's one state table: every legal move of a job, and nothing else."""

from enum import StrEnum


class JobState(StrEnum):
    """Where a job is. SUSPECT is the monitor's flag on a node, not a state of a job."""

    PENDING = "PENDING"
    AUCTIONING = "AUCTIONING"
    WAITING_CAPACITY = "WAITING_CAPACITY"
    ALLOCATING = "ALLOCATING"
    PREPARING = "PREPARING"
    RESTORING = "RESTORING"
    RUNNING = "RUNNING"
    RECOVERING = "RECOVERING"
    MIGRATING = "MIGRATING"
    HIBERNATING = "HIBERNATING"
    HIBERNATED = "HIBERNATED"
    CANCELLING = "CANCELLING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    EXHAUSTED = "EXHAUSTED"
    PARKED = "PARKED"


class JobEvent(StrEnum):
    """What happened to a job."""

    FUNDED = "funded"  # the deposit is in the escrow (mirrored from the chain)
    AWARDED = "awarded"  # a bid won, the fence was raised, open was journaled
    NOBODY_BID = "nobody_bid"  # the auction closed without an acceptable bid
    HELD_BACK = "held_back"  # no auction for now: the last leases came to nothing
    CAPACITY_TIMER = "capacity_timer"  # time to ask again
    OPENED = "opened"  # the lease is on chain
    OPEN_FAILED = "open_failed"  # open reverted or expired
    PREPARE_FAILED = "prepare_failed"  # image or blocks could not be had
    RESTORE_BEGAN = "restore_began"  # key released, start from a checkpoint commanded
    STARTED = "started"  # the workload runs
    RESTORE_FAILED = "restore_failed"  # the node could not bring the checkpoint to life
    LOST = "lost"  # the monitor declared the node LOST
    REAUCTIONED = "reauctioned"  # a new auction was opened for a job that lost its host
    HOST_STOPPED = "host_stopped"  # its node stopped in order, announced and within bounds
    VOIDED = "voided"  # a reorg or a fence took the award away
    MIGRATE_REQUESTED = "migrate_requested"
    MIGRATE_ABANDONED = "migrate_abandoned"  # thawed where it is
    HIBERNATE_REQUESTED = "hibernate_requested"
    HIBERNATE_ABANDONED = "hibernate_abandoned"
    HIBERNATED = "hibernated"  # last checkpoint durable, lease closing
    RESUME_REQUESTED = "resume_requested"
    CANCEL_REQUESTED = "cancel_requested"
    STOPPED = "stopped"  # the container is gone after a cancel
    EXITED_OK = "exited_ok"  # exit code 0
    RESTARTED = "restarted"  # non-zero exit, restarted on the spot
    MOVED = "moved"  # the host or the program failed there: try another
    GAVE_UP = "gave_up"  # nothing left to try
    PARKED = "parked"  # as GAVE_UP, but its tenant may let it go on
    FUNDS_OUT = "funds_out"  # the escrow can't pay another minimum runtime
    TOPPED_UP = "topped_up"


class IllegalJobEvent(Exception):
    """The table has no such move."""

    retryable = False

    def __init__(self, state: JobState, event: JobEvent) -> None:
        super().__init__(f"a job that is {state} can't take the event {event}")
        self.state = state
        self.event = event


S, E = JobState, JobEvent

FUND_WITHIN_S = 5 * 3600.0
"""An order whose deposit is not mirrored so soon after its posting lapses: unpaid orders keep no image for longer."""

ENDED = frozenset({S.SUCCEEDED, S.FAILED, S.CANCELLED})
PLACED = frozenset({S.ALLOCATING, S.PREPARING, S.RESTORING, S.RUNNING, S.MIGRATING, S.HIBERNATING})
"""States in which a node holds the current award."""
HOSTLESS = frozenset({S.AUCTIONING, S.WAITING_CAPACITY, S.RECOVERING})
"""States in which a job that goes on has no host."""

RESUMABLE = frozenset({S.WAITING_CAPACITY, S.HIBERNATED, S.EXHAUSTED, S.PARKED, S.SUCCEEDED, S.FAILED})
"""States from which its tenant lets a job go on, from any checkpoint that is kept."""
WAITS_FOR_RESUME = "it waits for 'job resume'"
"""How the reason of a job in WAITING_CAPACITY begins that neither time nor a node's news lets go on."""

_OPEN_ENDED = frozenset(S) - ENDED

_TABLE: dict[tuple[JobState, JobEvent], JobState] = {
    (S.PENDING, E.FUNDED): S.AUCTIONING,
    (S.AUCTIONING, E.AWARDED): S.ALLOCATING,
    (S.AUCTIONING, E.NOBODY_BID): S.WAITING_CAPACITY,
    (S.AUCTIONING, E.HELD_BACK): S.WAITING_CAPACITY,
    (S.WAITING_CAPACITY, E.CAPACITY_TIMER): S.AUCTIONING,
    (S.ALLOCATING, E.OPENED): S.PREPARING,
    (S.ALLOCATING, E.OPEN_FAILED): S.AUCTIONING,
    (S.ALLOCATING, E.PREPARE_FAILED): S.AUCTIONING,
    (S.PREPARING, E.PREPARE_FAILED): S.AUCTIONING,
    (S.PREPARING, E.RESTORE_BEGAN): S.RESTORING,
    (S.PREPARING, E.STARTED): S.RUNNING,
    (S.RESTORING, E.STARTED): S.RUNNING,
    (S.RESTORING, E.RESTORE_FAILED): S.AUCTIONING,
    (S.RECOVERING, E.REAUCTIONED): S.AUCTIONING,
    (S.RUNNING, E.MIGRATE_REQUESTED): S.MIGRATING,
    (S.MIGRATING, E.AWARDED): S.ALLOCATING,
    (S.MIGRATING, E.MIGRATE_ABANDONED): S.RUNNING,
    (S.RUNNING, E.HIBERNATE_REQUESTED): S.HIBERNATING,
    (S.WAITING_CAPACITY, E.HIBERNATE_REQUESTED): S.HIBERNATED,
    (S.HIBERNATING, E.HIBERNATE_ABANDONED): S.RUNNING,
    (S.HIBERNATING, E.HIBERNATED): S.HIBERNATED,
    (S.CANCELLING, E.STOPPED): S.CANCELLED,
    (S.CANCELLING, E.LOST): S.CANCELLED,
    (S.CANCELLING, E.VOIDED): S.CANCELLED,
    (S.RUNNING, E.RESTARTED): S.RUNNING,
    (S.RUNNING, E.MOVED): S.AUCTIONING,
    (S.EXHAUSTED, E.TOPPED_UP): S.AUCTIONING,
    # A hibernating job that loses its host is where its tenant wanted it, at its last committed checkpoint.
    (S.HIBERNATING, E.LOST): S.HIBERNATED,
    (S.HIBERNATING, E.HOST_STOPPED): S.HIBERNATED,
}
_TABLE |= {(s, E.RESUME_REQUESTED): S.AUCTIONING for s in RESUMABLE}
_TABLE |= {(s, E.LOST): S.RECOVERING for s in PLACED - {S.HIBERNATING}}
_TABLE |= {(s, E.HOST_STOPPED): S.AUCTIONING for s in PLACED - {S.HIBERNATING}}
_TABLE |= {(s, E.VOIDED): S.AUCTIONING for s in PLACED}
_TABLE |= {(s, E.CANCEL_REQUESTED): S.CANCELLING for s in _OPEN_ENDED - {S.CANCELLING}}
_TABLE |= {(s, E.EXITED_OK): S.SUCCEEDED for s in (S.RUNNING, S.MIGRATING, S.HIBERNATING, S.CANCELLING)}
_TABLE |= {(s, E.GAVE_UP): S.FAILED for s in _OPEN_ENDED - {S.CANCELLING}}
_TABLE |= {(s, E.PARKED): S.PARKED for s in HOSTLESS}
_TABLE |= {(s, E.FUNDS_OUT): S.EXHAUSTED for s in HOSTLESS | PLACED}


def next_state(state: JobState, event: JobEvent) -> JobState:
    """The state after ``event``; raises IllegalJobEvent where the table has no such move."""
    try:
        return _TABLE[state, event]
    except KeyError:
        raise IllegalJobEvent(state, event) from None


def allows(state: JobState, event: JobEvent) -> bool:
    """Whether the table has this move."""
    return (state, event) in _TABLE
