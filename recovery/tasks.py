"""The Celery tasks: each parses, calls one function and ends. All may run twice, late, or in parallel."""

import threading
from collections.abc import Callable, Iterable

import structlog
from celery import Celery, Task

from everlease.chain.errors import ChainError
from everlease.db import jobs
from everlease.db.engine import DatabaseUnavailable
from everlease.domain.job import JobState
from recovery import apply, clearing, routes, sweeps
from recovery.runtime import Runtime, build
from recovery.settings import RecoverySettings

log = structlog.get_logger()
_BUSY_RETRY_S = 0.2
_BUSY_RETRIES = 20


class Tasks:
    """The tasks of one worker process. Its runtime is built by the first task: nothing is shared over a fork."""

    def __init__(self, app: Celery, settings: RecoverySettings) -> None:
        self._app = app
        self._settings = settings
        self._runtime: Runtime | None = None
        self._building = threading.Lock()
        self._checked = False

    @property
    def runtime(self) -> Runtime:
        """This process's connections and key."""
        with self._building:
            if self._runtime is None:
                self._runtime = build(self._settings)
            return self._runtime

    def advance(self, job_id: str) -> None:
        """Bring one job as far as it can go."""
        try:
            moves = apply.advance(self.runtime.desk, job_id)
        except jobs.UnknownJob:
            log.warning("job.unknown", job_id=job_id)
            return
        if moves:
            log.info("job.advanced", job_id=job_id, moves=[type(move).__name__ for move in moves])

    def pump(self, task: Task) -> None:
        """Send what is journaled and follow what was sent."""
        process = self.runtime
        try:
            self._check_once(process)
            report = process.sender.pump(process.desk.watcher.address)
        except ChainError as error:
            log.warning("pump.failed", error=str(error), retryable=error.retryable)
            return
        if report.busy:
            raise task.retry(countdown=_BUSY_RETRY_S, max_retries=_BUSY_RETRIES)
        if report.problem:
            log.warning("pump.stuck", problem=report.problem, open=report.open)

    def _check_once(self, process: Runtime) -> None:
        """Nothing is sent to a chain that lacks the deployment's contracts. Raises WrongChain, BadDeployment."""
        if not self._checked:
            process.deployment.check(process.chain)
            self._checked = True

    def wake_waiting(self) -> None:
        """A node connected, or its facts are others: jobs that wait for capacity look again."""
        self._advance_all(sweeps.ids_in(self.runtime.database, JobState.WAITING_CAPACITY))

    def wake_migrating(self) -> None:
        """A node went away: jobs that were to move there look again."""
        self._advance_all(sweeps.ids_in(self.runtime.database, JobState.MIGRATING))

    def sweep_jobs(self) -> None:
        """Look at every job that goes on, whatever events were lost."""
        self._advance_all(sweeps.job_ids(self.runtime.database, self.runtime.desk.clock()))

    def sweep_commands(self) -> None:
        """Give up on commands without an answer."""
        sweeps.expire_commands(self.runtime.database, self.runtime.desk.clock())

    def sweep_leases(self) -> None:
        """Clear what was nobody's fault here; fail, close and refund what is past its deadlines."""
        clearing.clear_leases(self.runtime.desk)
        sweeps.settle_leases(self.runtime.desk)

    def sweep_storage(self) -> None:
        """Condemn old checkpoints, forget old events, take over settled prices."""
        process, settings = self.runtime, self._settings
        sweeps.settle_prices(process.database, process.desk.clock())
        sweeps.tidy(process.database, process.desk.clock(), settings.kept(), settings.kept_for())

    def _advance_all(self, job_ids: Iterable[str]) -> None:
        for job_id in job_ids:
            self._app.send_task(routes.ADVANCE, args=(job_id,))


def register(app: Celery, settings: RecoverySettings) -> Tasks:
    """Define the tasks on ``app``; all but the pump are tried again while the database is away."""
    tasks = Tasks(app, settings)
    plain: dict[str, Callable[..., None]] = {
        routes.ADVANCE: tasks.advance,
        routes.WAKE_WAITING: tasks.wake_waiting,
        routes.WAKE_MIGRATING: tasks.wake_migrating,
        routes.SWEEP_JOBS: tasks.sweep_jobs,
        routes.SWEEP_COMMANDS: tasks.sweep_commands,
        routes.SWEEP_LEASES: tasks.sweep_leases,
        routes.SWEEP_STORAGE: tasks.sweep_storage,
    }
    for name, function in plain.items():
        _define(app, name, function)

    def pump(self: Task) -> None:
        tasks.pump(self)

    app.task(name=routes.PUMP, bind=True, autoretry_for=(DatabaseUnavailable,), max_retries=5)(pump)
    return tasks


def _define(app: Celery, name: str, function: Callable[..., None]) -> None:
    def run(*args: str) -> None:
        function(*args)

    app.task(
        name=name,
        autoretry_for=(DatabaseUnavailable,),
        max_retries=20,
        retry_backoff=1,
        retry_backoff_max=15,
    )(run)
