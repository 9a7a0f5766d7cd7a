"""A running job's daily round: its heartbeat line, its regular checkpoints, and what follows its container's end."""

import asyncio
import logging
import sqlite3
from dataclasses import dataclass
from subprocess import SubprocessError
from typing import Any, Protocol

import psutil

from everlease.domain.jobspec import JobSpec
from everlease.wire.node import JobBeat
from provider_agent import guards, schedule
from provider_agent.checkpointer import Checkpoints
from provider_agent.commit import Committed
from provider_agent.errors import AgentError, CheckpointFailed, JobGone
from provider_agent.guard import find_freezer
from provider_agent.host import Host
from provider_agent.logs import LogFollower
from provider_agent.records import JobRecord
from provider_agent.runtime import oci
from provider_agent.runtime.container import JobContainer
from provider_agent.runtime.errors import ContainerFault, RuntimeFault
from provider_agent.terms import parse_spec

log = logging.getLogger(__name__)
POLL_S = 0.5
DISK_EVERY_S = 30.0
LOG_TAIL = 4096
FINAL_TRIES = 8


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
    """What the host sees of a container now; all zero and not running once it ended."""

    running: bool = False
    frozen: bool = False
    pids: int = 0
    memory_bytes: int = 0


class Life:
    """The tasks of one container, from its start until `end`."""

    def __init__(self, host: Host, owner: Owner, checkpoints: Checkpoints) -> None:
        self._host, self._owner, self._checkpoints = host, owner, checkpoints
        self._tasks: list[asyncio.Task[None]] = []
        self._plan: schedule.Plan | None = None
        self._disk = 0
        self._logs: list[LogFollower] = []

    @property
    def _spec(self) -> JobSpec:
        return parse_spec(self._owner.record.prepare.spec)

    def begin(self) -> None:
        """Start watching, following the output, and checkpointing."""
        record = self._owner.record
        assert record.container is not None
        self._logs = [LogFollower(self._host, record.job_id, record.container, "stdout")]
        self._tasks = [asyncio.create_task(self._watch()), asyncio.create_task(self._measure_disk())]
        self._tasks += [asyncio.create_task(follower.run()) for follower in self._logs]
        if record.mode != "none":
            self._tasks.append(asyncio.create_task(self._checkpoint_regularly()))

    async def end(self) -> None:
        """Stop all of it; a checkpoint in flight is given up."""
        for follower in self._logs:
            follower.close()
        current = asyncio.current_task()
        others = [task for task in self._tasks if task is not current]
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
        sample = await asyncio.to_thread(self._sample, record)
        serving = sample.running and (not sample.frozen or self._checkpoints.dumping) and not self._owner.frozen
        bound = None
        if record.phase == "running" and record.mode != "none":
            bound = round(schedule.loss_now(record, self._plan, self._host.clock.unix()), 1)
        return JobBeat(
            job_id=record.job_id,
            fence=record.fence,
            serving=serving and record.phase == "running",
            pid_count=sample.pids,
            memory_bytes=sample.memory_bytes,
            disk_bytes=self._disk,
            loss_bound_s=bound,
        )

    def _sample(self, record: JobRecord) -> Sample:
        """Look at the container's cgroup, and see to it that a guard lives."""
        folder = oci.container_folder(self._host.engine.state, record.container or "")
        freezer = find_freezer(folder)
        if freezer is None:
            return Sample()
        try:
            guards.ensure(folder)
            pids, frozen, memory = freezer.pids(), freezer.requested(), 0
            for pid in pids:
                try:
                    memory += psutil.Process(pid).memory_info().rss
                except psutil.Error:
                    continue
            return Sample(True, frozen, len(pids), memory)
        except (OSError, ContainerFault):
            return Sample()

    # --- the container's end ---

    async def _watch(self) -> None:
        """Poll until the container has ended, then report it, outputs first when it ended well."""
        record = self._owner.record
        while True:
            try:
                found = await asyncio.to_thread(self._host.engine.inspect, record.container or "")
            except ContainerFault as error:
                if not error.retryable:
                    log.error("job %s: %s", record.job_id[:10], error)
                    await self._ended(None)
                    return
            else:
                if found.exit_code is not None:
                    await self._ended(found)
                    return
            await asyncio.sleep(POLL_S)

    async def _ended(self, container: JobContainer | None) -> None:
        code = container.exit_code if container is not None and container.exit_code is not None else 137
        record = self._owner.record
        self._host.journal.put_job(record.model_copy(update={"phase": "exited", "exit_code": code}))
        if record.exit_reported:
            return
        killed = bool(container and container.oom_killed)
        data: dict[str, Any] = {"code": code, "container": record.container or "", "oom_killed": killed}
        if code == 0:
            data |= await self._keep_outputs()
            self._host.crash.reach("final.committed")
        else:
            data["log_tail"] = await asyncio.to_thread(self._tail)
        for follower in self._logs:
            await follower.drained()
        key = record.container or ""
        if data["oom_killed"]:
            self._owner.notice("oom_killed", "the job used more memory than its order allows", key=key)
        self._owner.notice("exited", f"the container ended with code {code}", data, key=key)
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
            wait = max(self._plan.due - now, schedule.retry_after(failures) if failures else 0.0)
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

    async def _measure_disk(self) -> None:
        """Bytes on disk for heartbeats; a job that writes more than its order allows is stopped."""
        told = False
        while True:
            record = self._owner.record
            try:
                self._disk = await asyncio.to_thread(self._host.engine.disk_used, record.container or "")
            except (AgentError, RuntimeFault, OSError, SubprocessError) as error:
                log.debug("the disk of %s was not measured: %s", record.job_id[:10], error)
                await asyncio.sleep(DISK_EVERY_S)
                continue
            if self._disk > self._spec.resources.disk_bytes and not told and record.phase == "running":
                told = True
                self._owner.notice("disk_full", f"the job wrote {self._disk} bytes, more than its order allows")
                await asyncio.to_thread(self._host.engine.stop, record.container or "")
            await asyncio.sleep(DISK_EVERY_S)
