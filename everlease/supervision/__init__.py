"""Background work that neither ends nor stalls unseen: one supervisor per process, for tasks or for threads.

A piece of work that returns or raises is started again, after a wait that doubles. It calls ``alive`` now and then;
one that stays silent for longer than it said it would counts as stalled. Restarts, silence and state are in the roster,
from which readiness lines and metrics are read.
"""

from everlease.supervision.lag import watch_loop
from everlease.supervision.roster import Alive, Report, Roster, TaskState, TaskStatus
from everlease.supervision.tasks import TaskSupervisor
from everlease.supervision.threads import ThreadSupervisor

__all__ = [
    "Alive",
    "Report",
    "Roster",
    "TaskState",
    "TaskStatus",
    "TaskSupervisor",
    "ThreadSupervisor",
    "watch_loop",
]
