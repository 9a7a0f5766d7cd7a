"""A running job's daily round: its heartbeat line, its regular checkpoints, and what follows its container's end."""

import asyncio
import logging
import sqlite3
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from subprocess import SubprocessError
from typing import Any, Protocol

import psutil

from everlease.domain.jobspec import JobSpec
from everlease.wire.node import JobBeat
from provider_agent import guards, schedule, verdict
from provider_agent.checkpointer import Checkpoints
from provider_agent.commit import Committed
from provider_agent.errors import AgentError, CheckpointFailed, JobGone, StepFailed
from provider_agent.guard import find_freezer
from provider_agent.host import Host
from provider_agent.logs import LogFollower
from provider_agent.records import JobRecord
from provider_agent.runtime import oci
from provider_agent.runtime.errors import RuntimeFault
from provider_agent.terms import parse_spec
from provider_agent.threads import BEATING, GUARDING, run_in

log = logging.getLogger(__name__)
POLL_S = 0.5
MEASURE_EVERY_S = 30.0
LOG_TAIL = 4096
FINAL_TRIES = 8
AGAIN_S = 2.0


class Owner(Protocol):
    """The job, as its daily round sees it."""

    confirmed: bool

    @property
    def record(self) -> JobRecord: ...

    @property
    def frozen(self) -> bool: ...

    def notice(self, kind: str, detail: str, data: dict[str, Any] | None = None, *, key: str = "") -> None: ...

    async def take(self, *, hold: bool = False, final: bool = False) -> Committed: ...

    async def refused(self) -> None: ...


@dataclass(frozen=True)
class Sample:
    """What the host sees of a container now; not running once it ended."""

    running: bool = False
    guarded: bool = True
    frozen: bool = False


@dataclass(frozen=True)
class Usage:
    """What a container uses, measured now and then: a job may have as many processes as its order allows."""

    disk_bytes: int = 0
    memory_bytes: int = 0
    pids: int = 0


class Life:
    """The tasks of one container, from its start until `end`."""

    def __init__(self, host: Host, owner: Owner, checkpoints: Checkpoints) -> None:
        self._host, self._owner, self._checkpoints = host, owner, checkpoints
        self._tasks: list[asyncio.Task[None]] = []
        self._guarding: asyncio.Task[None] | None = None
        self._plan: schedule.Plan | None = None
        self._usage = Usage()
        self._logs: list[LogFollower] = []

    @property
    def _spec(self) -> JobSpec:
        return parse_spec(self._owner.record.prepare.spec)

    def begin(self) -> None:
        """Start watching, following the output, and checkpointing."""
        record = self._owner.record
        assert record.container is not None
        self._logs = [LogFollower(self._host, record.job_id, record.container)]
        works: list[Callable[[], Awaitable[None]]] = [self._watch, self._measure]
        works += [follower.run for follower in self._logs]
        if record.mode != "none":
            works.append(self._checkpoint_regularly)
        self._tasks = [asyncio.create_task(self._keep_up(work)) for work in works]

    async def _keep_up(self, work: Callable[[], Awaitable[None]]) -> None:
        """What fails of anything but the job's being gone begins again: a job nobody watches would run for ever."""
        while True:
            try:
                return await work()
            except (JobGone, StepFailed) as error:
                return log.info("job %s: %s", self._checkpoints.job_id[:10], error)
            except Exception:
                log.exception("job %s: a task failed and begins again", self._checkpoints.job_id[:10])
                await asyncio.sleep(AGAIN_S)

    async def end(self) -> None:
        """Stop all of it; a checkpoint in flight is given up."""
        for follower in self._logs:
            follower.close()
        current = asyncio.current_task()
        others = [task for task in (*self._tasks, self._guarding) if task is not None and task is not current]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        self._tasks = []

    async def say_all(self) -> None:
        """Wait until the output of a container that stands still has arrived."""
        for follower in self._logs:
            await follower.idle()

    async def beat(self, record: JobRecord) -> JobBeat:
        """The job's line. A pause for a checkpoint counts as service: it is part of what is paid for."""
        sample = await run_in(BEATING, self._sample, record)
        if not sample.guarded and (self._guarding is None or self._guarding.done()):
            self._guarding = asyncio.create_task(self._guard(record))
        serving = sample.running and (not sample.frozen or self._checkpoints.dumping) and not self._owner.frozen
        bound = None
        if record.phase == "running" and record.mode != "none":
            bound = round(schedule.loss_now(record, self._plan, self._host.clock.unix()), 1)
        return JobBeat(
            job_id=record.job_id,
            fence=record.fence,
            serving=serving and record.phase == "running",
            pid_count=self._usage.pids if sample.running else 0,
            memory_bytes=self._usage.memory_bytes if sample.running else 0,
            disk_bytes=self._usage.disk_bytes,
            loss_bound_s=bound,
            storing=_stores(record),
        )

    def _sample(self, record: JobRecord) -> Sample:
        """Look at the container's cgroup, and whether guards live."""
        folder = oci.container_folder(self._host.engine.state, record.container or "")
        freezer = find_freezer(folder)
        if freezer is None:
            return Sample()
        try:
            frozen = freezer.requested() or guards.stands_still(folder)
            return Sample(True, guards.guarded(folder), frozen)
        except OSError:
            return Sample()

    async def _guard(self, record: JobRecord) -> None:
        """Beside the heartbeats: start the guards that are missing."""
        folder = oci.container_folder(self._host.engine.state, record.container or "")
        try:
            await run_in(GUARDING, guards.ensure, folder)
        except (OSError, SubprocessError, RuntimeFault) as error:
            log.warning("job %s has no guard, so it stands still: %s", record.job_id[:10], error)

    # --- the container's end ---

    async def _watch(self) -> None:
        """Wait until the container has ended, then report it, outputs first when its program ended well."""
        record = self._owner.record
        judged = record.phase == "exited"
        end = await (verdict.recall(self._host, record) if judged else verdict.wait(self._host, record.job_id))
        record = self._owner.record
        changes = {"phase": "exited", "exit_code": end.code, "host_fault": end.fault}
        self._host.journal.put_job(record.model_copy(update=changes))
        self._host.crash.reach("exit.judged")
        if not record.exit_reported:
            await self._report(record, end)

    async def _report(self, record: JobRecord, end: verdict.End) -> None:
        key = record.container or ""
        data: dict[str, Any] = {"code": end.code, "container": key, "oom_killed": end.oom_killed}
        if end.fault:
            data["host_fault"] = end.fault
        elif end.code == 0:
            data |= await self._keep_outputs()
            self._host.crash.reach("final.committed")
        else:
            data["log_tail"] = await asyncio.to_thread(self._tail)
        for follower in self._logs:
            await follower.drained()
        if end.oom_killed and not end.fault:
            self._owner.notice("oom_killed", "the job used more memory than its order allows", key=key)
        how = f"{end.fault}: the container is gone" if end.fault else f"the container ended with code {end.code}"
        self._owner.notice("exited", how, data, key=key)
        self._host.journal.put_job(self._owner.record.model_copy(update={"exit_reported": True}))

    async def _keep_outputs(self) -> dict[str, Any]:
        """Commit what a job that ended well leaves behind; tried for some minutes unless the job is no longer ours."""
        failures = 0
        while True:
            try:
                return (await self._owner.take(final=True)).as_result()
            except CheckpointFailed as error:
                failures += 1
                if error.fenced or not error.retryable or failures == FINAL_TRIES:
                    self._owner.notice("checkpoint_failed", error.sentence, {"final": True})
                    return {"outputs_error": error.sentence}
                self._owner.notice("checkpoint_failed", error.sentence, {"retryable": True})
                await asyncio.sleep(schedule.retry_after(failures))

    def _tail(self) -> str:
        """The end of the output, for the report of a failure."""
        lines: list[bytes] = []
        try:
            for line in self._host.engine.logs(self._owner.record.container or ""):
                lines = [*lines[-199:], line.text]
        except RuntimeFault:
            return ""
        return b"".join(lines)[-LOG_TAIL:].decode("utf-8", "replace")

    # --- regular checkpoints ---

    async def _checkpoint_regularly(self) -> None:
        """The trial soon after the start, then one checkpoint per interval; failures lengthen the wait."""
        failures = 0
        while True:
            record = self._owner.record
            if record.phase == "exited" or record.start is None or record.mode == "none":
                return
            now = self._host.clock.unix()
            policy = self._spec.checkpoint
            self._plan = schedule.next_checkpoint(
                record, policy, record.start.mtbf_s, self._host.settings.trial_after_s
            )
            # Never more than an interval: the wall clock may have been set back.
            wait = max(
                min(self._plan.due - now, self._plan.interval), schedule.retry_after(failures) if failures else 0.0
            )
            await asyncio.sleep(max(wait, 0.05))
            if self._owner.record.phase != "running" or self._owner.frozen or not self._owner.confirmed:
                await asyncio.sleep(POLL_S)
                continue
            try:
                failures = await self._attempt(failures)
            except (OSError, sqlite3.Error) as error:
                # Not even the notice could be written down: the loss shown grows, and the next attempt tells.
                log.error("job %s: %s", self._owner.record.job_id[:10], error)
                failures += 1

    async def _attempt(self, failures: int) -> int:
        """One regular checkpoint; how many have failed in a row now."""
        trial = not self._owner.record.tried
        try:
            done = await self._owner.take()
        except JobGone:
            return failures
        except CheckpointFailed as error:
            if self._owner.record.phase == "exited":
                return failures
            if error.fenced:
                self._fenced()
                return failures
            self._failed(error, trial)
            return failures + 1
        if trial:
            self._owner.notice("trial_dump", "the program can be checkpointed", {"ok": True, **done.as_result()})
        return 0

    def _fenced(self) -> None:
        """A checkpoint was refused under our fence. Dropping the job ends this task, so it needs one of its own."""
        self._owner.notice("fenced", "a checkpoint was refused: another host has the job")
        task = asyncio.get_running_loop().create_task(self._owner.refused())
        task.add_done_callback(lambda done: done.cancelled() or done.exception())

    def _failed(self, error: CheckpointFailed, trial: bool) -> None:
        record = self._owner.record
        if error.permanent:
            fallen = "files" if self._spec.checkpoint.fall_back_to_files and record.mode == "process" else "none"
            self._host.journal.put_job(record.model_copy(update={"mode": fallen, "tried": True}))
            data = {"ok": False, "permanent": True, "mode": record.mode, "next_mode": fallen, "trial": trial}
            self._owner.notice("trial_dump", error.sentence, data)
        else:
            kind = "disk_full" if error.full else "checkpoint_failed"
            self._owner.notice(kind, error.sentence, {"retryable": error.retryable})
        log.warning("job %s: checkpoint failed: %s", record.job_id[:10], error.sentence)

    # --- what it uses ---

    async def _measure(self) -> None:
        """For heartbeats; a job that writes more than its order allows is stopped."""
        told = False
        while True:
            record = self._owner.record
            try:
                self._usage = await asyncio.to_thread(self._measured, record.container or "")
            except (AgentError, RuntimeFault, OSError, SubprocessError) as error:
                log.debug("what %s uses was not measured: %s", record.job_id[:10], error)
                await asyncio.sleep(MEASURE_EVERY_S)
                continue
            used = self._usage.disk_bytes
            if used > self._spec.resources.disk_bytes and not told and record.phase == "running":
                # First: on a full disk not even the notice can be written down.
                await asyncio.to_thread(self._host.engine.stop, record.container or "")
                told = True
                self._owner.notice("disk_full", f"the job wrote {used} bytes, more than its order allows")
            await asyncio.sleep(MEASURE_EVERY_S)

    def _measured(self, container: str) -> Usage:
        disk = self._host.engine.disk_used(container)
        freezer = find_freezer(oci.container_folder(self._host.engine.state, container))
        pids = freezer.pids() if freezer is not None else ()
        memory = 0
        for pid in pids:
            try:
                memory += psutil.Process(pid).memory_info().rss
            except psutil.Error:
                continue
        return Usage(disk, memory, len(pids))


def _stores(record: JobRecord) -> bool:
    """Whether the workload stands still for something to be stored: its outputs, or a checkpoint that holds it."""
    ended_well = record.phase == "exited" and record.exit_code == 0 and not record.host_fault
    return ended_well or record.phase == "held" or record.leaving
