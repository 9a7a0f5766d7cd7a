"""The agent leaves in order: the market moves what it can in time, the rest gets a last checkpoint and stands still."""

import asyncio
import logging
import sqlite3
from collections.abc import Mapping
from typing import Any

from provider_agent.errors import AgentError, StepFailed
from provider_agent.host import Host
from provider_agent.jobs import Job
from provider_agent.records import JobRecord

log = logging.getLogger(__name__)
LOOK_S = 0.2
SLACK_S = 1.0
"""Seconds before the deadline that are kept for freezing and saying goodbye."""
LEAST_S, FOLD = 3.0, 1.5
TRIES = 3
GOODBYE_S = 2.0
_WAITING = frozenset({"preparing", "prepared", "starting"})


class Departure:
    """One per agent; ``deadline`` is CLOCK_BOOTTIME, ``jobs`` the supervisor's, which change meanwhile."""

    def __init__(self, host: Host, jobs: Mapping[str, Job], within_s: float, reason: str) -> None:
        self._host, self._jobs, self._reason = host, jobs, reason
        self._within = within_s
        self._deadline = host.clock.boottime() + within_s
        self._last: dict[str, asyncio.Task[None]] = {}
        self._tries: dict[str, int] = {}
        self._why: dict[str, str] = {}

    @property
    def left(self) -> float:
        """Seconds until everything must be done."""
        return self._deadline - SLACK_S - self._host.clock.boottime()

    async def run(self) -> list[dict[str, Any]]:
        """Wait, checkpoint, freeze, say goodbye; the last words said. What went wrong is in them."""
        while self.left > 0 and not self._settled():
            for record in self._host.journal.jobs():
                if record.phase == "running" and record.job_id not in self._last and self._now_or_never(record):
                    self._last[record.job_id] = asyncio.create_task(self._checkpoint(record.job_id))
            await asyncio.sleep(LOOK_S)
        for task in self._last.values():
            task.cancel()
        await asyncio.gather(*self._last.values(), return_exceptions=True)
        words = [await self._leave(record) for record in self._host.journal.jobs()]
        self._host.crash.reach("leave.frozen")
        await self._say(words)
        return words

    def _settled(self) -> bool:
        """Whether no more can be gained by waiting: all that is left stands still or can't be checkpointed."""
        pending = any(not task.done() for task in self._last.values())
        records = self._host.journal.jobs()
        return not pending and all(r.leaving or self._gave_up(r) for r in records)

    def _gave_up(self, record: JobRecord) -> bool:
        over = record.phase == "exited" and record.exit_reported
        return (
            over
            or record.phase in _WAITING
            or (record.phase == "running" and self._tries.get(record.job_id, 0) >= TRIES)
        )

    def _now_or_never(self, record: JobRecord) -> bool:
        """Whether the time for a last checkpoint has come: half of it belongs to the market, which may move the job."""
        if record.mode == "none":
            self._tries[record.job_id] = TRIES
            self._why[record.job_id] = "this job takes no checkpoints"
            return False
        takes = record.pause_s + record.upload_s
        if takes > self.left:
            self._tries[record.job_id] = TRIES
            self._why.setdefault(record.job_id, f"no time for a checkpoint: it takes {takes:.0f} s")
            return False
        return self.left <= max(self._within / 2, FOLD * takes + LEAST_S) and self._tries.get(record.job_id, 0) < TRIES

    async def _checkpoint(self, job_id: str) -> None:
        self._tries[job_id] = self._tries.get(job_id, 0) + 1
        self._why[job_id] = "no time for a checkpoint: it was not stored before the host stopped"
        try:
            await self._jobs[job_id].hold_last()
        except (AgentError, KeyError, OSError, sqlite3.Error) as error:
            self._why[job_id] = f"no last checkpoint: {error}"[:500]
            log.warning("job %s: %s", job_id[:10], self._why[job_id])
            if isinstance(error, AgentError) and not error.retryable:
                self._tries[job_id] = TRIES
        else:
            self._why.pop(job_id, None)
            self._host.crash.reach("leave.held")
        finally:
            self._last.pop(job_id, None)

    async def _leave(self, record: JobRecord) -> dict[str, Any]:
        """The last word on one job; after it the workload stands still, if that can be had at all."""
        job = self._jobs.get(record.job_id)
        try:
            still = await job.stand_still() if job is not None else False
        except (StepFailed, OSError, sqlite3.Error) as error:
            log.warning("job %s: its last word is uncertain: %s", record.job_id[:10], error)
            still = False
        why = self._why.get(record.job_id, "")
        if record.phase == "running" and not why:
            why = "no time for a checkpoint"
        return {"job_id": record.job_id, "fence": record.fence, "head": record.head, "still": still, "why": why}

    async def _say(self, words: list[dict[str, Any]]) -> None:
        body = {"type": "goodbye", "reason": self._reason[:2000], "jobs": words}
        wait = max(self._deadline - self._host.clock.boottime(), GOODBYE_S)
        try:
            async with asyncio.timeout(wait):
                await self._host.messenger.deliver(body)
        except TimeoutError:
            log.warning("the marketplace did not hear our goodbye: it will find us gone")
            return
        said = {(word["job_id"], word["fence"]) for word in words}
        left = [record for record in self._host.journal.jobs() if record.leaving]
        _note(self._host, [record for record in left if (record.job_id, record.fence) in said], goodbye=True)
        self._host.crash.reach("leave.told")


def take_back(host: Host) -> None:
    """An agent that starts again: the market sees it come back, so that goodbyes of before no longer count."""
    _note(host, [record for record in host.journal.jobs() if record.goodbye], goodbye=False)


def _note(host: Host, records: list[JobRecord], *, goodbye: bool) -> None:
    """Journal whether the market has taken the goodbye. A full disk must not keep an agent from ending or starting."""
    for record in records:
        try:
            host.journal.put_job(record.model_copy(update={"goodbye": goodbye}))
        except (OSError, sqlite3.Error) as error:
            log.warning("job %s: what became of its goodbye can't be kept: %s", record.job_id[:10], error)
