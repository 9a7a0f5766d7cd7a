"""The agent's centre: what comes over the link goes to jobs and bids; every second a heartbeat goes back."""

import asyncio
import logging
import sqlite3
from collections.abc import Coroutine, Sequence
from typing import Any

from everlease.wire.commands import Command, Freeze, Prepare, Restart, Start, Stop
from everlease.wire.node import (
    CallForBids,
    Challenge,
    CommandMessage,
    CommitAnswer,
    DrainStatus,
    HeartbeatAck,
    HeldContainer,
    JobBeat,
    Receipts,
    Refusal,
    TokenGrant,
    ToNode,
    Welcome,
)
from everlease.wire.terms import SignedReceipt
from provider_agent import answers, bidding
from provider_agent.departure import Departure, take_back
from provider_agent.errors import LinkDown, StepFailed
from provider_agent.heartbeat import Heartbeats
from provider_agent.host import Host
from provider_agent.jobs import Job
from provider_agent.link import Link
from provider_agent.mail import Mail
from provider_agent.orphans import sweep_host
from provider_agent.runtime.container import FAILURES
from provider_agent.runtime.errors import RuntimeFault
from provider_agent.threads import BIDDING, run_in

log = logging.getLogger(__name__)
DROP_AFTER_S = 10.0
DROP_AGAIN_S = 5.0
"""A job that can't be removed, since Docker is away, is tried again after this time."""
PREPARED_FOR_S = 1800.0
MOST_CALLS = 8
"""Calls for bids that are looked at or wait to be, at once: with a Docker that hangs none of them ends."""
HEARD_S = 1.5
"""How long a restart waits for the marketplace to have heard of it."""
ANSWERED_S = 0.5
"""How long the agent lives on after its departure, so that whoever asked for it gets the answer."""


class Supervisor:
    """One per agent; it is the link's listener."""

    def __init__(self, host: Host, link: Link, mail: Mail, heartbeats: Heartbeats) -> None:
        self._host, self._link, self._mail, self._heartbeats = host, link, mail, heartbeats
        self.jobs: dict[str, Job] = {}
        self._dropping: set[Job] = set()
        self._steps: set[tuple[str, str]] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._calls = 0
        self._waiting: dict[tuple[str, str], float] = {}
        self.draining = False
        self.exit_when_empty = False
        self.empty = asyncio.Event()
        self._departure: asyncio.Task[list[dict[str, Any]]] | None = None

    # --- start and end ---

    def take_up(self) -> None:
        """After a start: jobs of the journal are adopted, what nobody knows is removed."""
        sweep_host(self._host)
        take_back(self._host)
        for record in self._host.journal.jobs():
            job = self.jobs[record.job_id] = Job(self._host, record.job_id)
            try:
                job.adopt()
            except StepFailed as error:
                log.error("job %s can't be taken up: %s", record.job_id[:10], error)

    async def beat_for_ever(self) -> None:
        """A heartbeat per interval, with a line per job that has a container or is about to."""
        while True:
            started = self._host.clock.boottime()
            if self._link.connected:
                await self._beat()
            self._expire()
            if self.draining and self.exit_when_empty and not self._host.journal.jobs():
                self.empty.set()
            spent = self._host.clock.boottime() - started
            await asyncio.sleep(max(self._heartbeats.every - spent, 0.05))

    async def _beat(self) -> None:
        lines: list[JobBeat] = []
        for job_id, job in list(self.jobs.items()):
            record = self._host.journal.job(job_id)
            # A preparation is not under this node's own fence yet (it may be for a migration), so it has no line.
            if record is not None and record.phase not in ("preparing", "prepared"):
                lines.append(await job.beat())
        try:
            await self._heartbeats.send(self._link, lines)
        except LinkDown:
            return

    def _expire(self) -> None:
        """Give up preparations that no start followed, by the clock that nobody sets since this process saw them."""
        now, before = self._host.clock.boottime(), self._waiting
        records = [record for record in self._host.journal.jobs() if record.phase in ("preparing", "prepared")]
        steps = [(record.job_id, record.prepare.step) for record in records]
        self._waiting = {step: before.get(step, now) for step in steps}
        for (job_id, _), since in self._waiting.items():
            if now - since > PREPARED_FOR_S and job_id in self.jobs:
                self._spawn(self._drop(self.jobs[job_id], "no start followed its preparation"))

    async def let_go(self) -> None:
        """The agent ends: stop watching, leave the containers to their guards."""
        for task in list(self._tasks):
            task.cancel()
        for job in self.jobs.values():
            await job.let_go()

    def drain_soon(self, reason: str) -> None:
        """`drain` from a signal handler."""
        self._spawn(self._drain(reason))

    async def _drain(self, reason: str) -> None:
        await self.drain(reason, exit_when_empty=False)

    async def drain(self, reason: str, exit_when_empty: bool) -> dict[str, Any]:
        """No more bids; the marketplace moves every job elsewhere."""
        self.draining, self.exit_when_empty = True, exit_when_empty
        await self._announce_drain(reason)
        return {"ok": True, "jobs_left": len(self._host.journal.jobs())}

    async def stop(self, within_s: float, reason: str) -> dict[str, Any]:
        """Leave in order within that time (see departure), then end; asked again, it is the same departure."""
        if self._departure is None:
            self.draining = True
            departure = Departure(self._host, self.jobs, within_s, reason)
            self._departure = asyncio.create_task(departure.run())
            await self._announce_drain(reason, within_s)
            self._host.crash.reach("leave.announced")
        try:
            return {"ok": True, "jobs": await asyncio.shield(self._departure)}
        finally:
            asyncio.get_running_loop().call_later(ANSWERED_S, self.empty.set)

    async def restart(self) -> dict[str, Any]:
        """This agent ends only to be started anew: tell the marketplace, and whether it has heard that."""
        if not self._link.connected:
            return {"ok": False, "error": "there is no connection to the marketplace"}
        telling = asyncio.create_task(self._link.deliver({"type": "restarting"}))
        try:
            async with asyncio.timeout(HEARD_S):
                # The answer to a heartbeat says that what was sent before it has come.
                await self._beat()
                await telling
        except TimeoutError:
            return {"ok": False, "error": "the marketplace does not answer"}
        finally:
            telling.cancel()
        return {"ok": True}

    async def _announce_drain(self, reason: str, within_s: float | None = None) -> None:
        try:
            await self._link.send({"type": "drain", "reason": reason[:2000], "within_s": within_s})
        except LinkDown:
            log.info("the drain is announced once the link is back")

    def idle(self) -> bool:
        """Whether there are no jobs on this host, and it isn't about to leave."""
        return not self.draining and not self._host.journal.jobs()

    async def tell_facts(self) -> None:
        """Tell the marketplace that the host's facts are others than it was told; returns once it knows."""
        await self._link.deliver({"type": "facts", "facts": self.facts()})

    def status(self) -> dict[str, Any]:
        """For people: who this is and what it runs."""
        records = self._host.journal.jobs()
        jobs = [
            {"job_id": r.job_id, "fence": r.fence, "phase": r.phase, "mode": r.mode, "checkpoint": r.head_seq}
            for r in records
        ]
        return {
            "ok": True,
            "node": self._host.identity.key.address,
            "connected": self._link.connected,
            "draining": self.draining,
            "leaving": self._departure is not None,
            "jobs": jobs,
        }

    # --- the link's listener ---

    def facts(self) -> dict[str, Any]:
        """The host's facts, with the disk as it is now."""
        return {**self._host.facts, "disk_free_bytes": max(self._host.free_disk(), 0)}

    def held(self) -> list[HeldContainer]:
        """Every job of this node for Hello."""
        return [job.held() for job_id, job in self.jobs.items() if self._host.journal.job(job_id) is not None]

    def admitted(self, challenge: Challenge, welcome: Welcome) -> None:
        """A new session: only confirmed jobs may thaw; each job re-asserts its head and asks for its newest receipt."""
        self._heartbeats.begin(challenge)
        for job_id, job in list(self.jobs.items()):
            record = self._host.journal.job(job_id)
            job.confirmed = record is not None and welcome.confirmed.get(job_id) == record.fence
            if job_id in welcome.dropped:
                self._spawn(self._drop_soon(job))
            if record is not None and record.start is not None:
                self._spawn(self._reassert(job_id, record.fence, record.start.lease_id))
        if self.draining:
            self._spawn(self._announce_drain("the provider drains this node"))

    async def _drop_soon(self, job: Job) -> None:
        """Freeze now; drop once a heartbeat was refused under the old fence, or after a while in any case."""
        await job.freeze_now()
        await asyncio.sleep(DROP_AFTER_S)
        await self._drop(job, "the marketplace dropped it at our return: it ended or moved")

    async def _reassert(self, job_id: str, fence: int, lease_id: str) -> None:
        path = self._host.folders.last_commit(job_id)
        try:
            body = await asyncio.to_thread(path.read_text, encoding="utf-8")
            await self._link.reassert(body)
        except (OSError, LinkDown):
            log.debug("job %s has no commit to repeat", job_id[:10])
        request = {"type": "receipt_request", "job_id": job_id, "fence": fence, "lease_id": lease_id}
        try:
            await self._link.send(request)
        except LinkDown:
            return

    def received(self, message: ToNode) -> None:
        """Hand a message to whom it is for; slow work becomes a task."""
        match message:
            case HeartbeatAck():
                self._acknowledged(message)
            case CommandMessage(command=command):
                self._accept(command)
            case CallForBids():
                self._spawn(self._bid(message))
            case CommitAnswer():
                self._commit_answered(message)
            case Receipts(receipts=receipts):
                self._keep(receipts)
            case TokenGrant():
                self._mail.granted(message)
            case DrainStatus(jobs_left=left):
                log.info("draining: %d jobs left", left)
            case Refusal(of=of, reason=reason):
                log.info("the marketplace refused a %s: %s", of, reason)

    def _keep(self, receipts: Sequence[SignedReceipt]) -> None:
        """Newer ones come, so one that can't be written down is no reason to end."""
        try:
            for signed in receipts:
                self._host.journal.keep_receipt(signed)
        except sqlite3.Error as error:
            log.warning("receipts can't be written down: %s", error)

    def _acknowledged(self, ack: HeartbeatAck) -> None:
        lines = self._heartbeats.acknowledged(ack.ack)
        for job_id in ack.refused:
            job, record = self.jobs.get(job_id), self._host.journal.job(job_id)
            # The fence may have risen since the heartbeat was sent: then it was the older one that was refused.
            if job is not None and record is not None and lines.get(job_id) == record.fence:
                self._spawn(self._drop(job, "the marketplace refused its heartbeat: it ended or moved"))
        for job_id, fence in lines.items():
            job, record = self.jobs.get(job_id), self._host.journal.job(job_id)
            if job is None or record is None or record.fence != fence or job_id in ack.refused:
                continue
            if record.leaving and self._departure is None:
                self._spawn(job.come_back())
            if job.extend(self._heartbeats.deadline()):
                self._spawn(job.resume())

    def _commit_answered(self, answer: CommitAnswer) -> None:
        for job in self.jobs.values():
            if job.checkpoints is not None and job.checkpoints.expects(answer.request):
                job.checkpoints.answered(answer)
                return
        self._link.forget(f"commit:{answer.request}")

    async def _drop(self, job: Job, why: str) -> None:
        """Remove a job from this host, once: heartbeats go on being refused until it is gone."""
        if self.jobs.get(job.job_id) is not job or job in self._dropping:
            return
        log.warning("job %s is removed here: %s", job.job_id[:10], why)
        self._dropping.add(job)
        try:
            await job.refused()
        except (RuntimeFault, *FAILURES) as error:
            log.warning("job %s can't be removed yet: %s", job.job_id[:10], error)
            await asyncio.sleep(DROP_AGAIN_S)
            return
        finally:
            self._dropping.discard(job)
        if self.jobs.get(job.job_id) is job:
            del self.jobs[job.job_id]

    # --- commands ---

    def _accept(self, command: Command) -> None:
        """Answer a repeat from the journal; else do the step in a task of its own, once."""
        key = (command.job_id, command.step)
        recorded = self._host.journal.result(*key)
        if recorded is not None:
            self._host.journal.finish(recorded)
            self._link.wake()
        elif key not in self._steps:
            self._steps.add(key)
            self._spawn(self._carry_out(command))

    async def _carry_out(self, command: Command) -> None:
        try:
            result = await answers.answer(command, self._do(command))
        finally:
            self._steps.discard((command.job_id, command.step))
        self._host.journal.finish(result)
        self._link.wake()
        if self._host.journal.job(command.job_id) is None:
            self.jobs.pop(command.job_id, None)

    async def _do(self, command: Command) -> dict[str, Any]:
        job = self._job_for(command)
        return await job.carry_out(command) if job is not None else {}

    def _job_for(self, command: Command) -> Job | None:
        """The job a command is for. A command proves that its fence is current; None: there is nothing left to do."""
        job, record = self.jobs.get(command.job_id), self._host.journal.job(command.job_id)
        if isinstance(command, Stop | Freeze) and (job is None or (record and command.fence < record.fence)):
            return None
        if record is not None and command.fence < record.fence:
            raise StepFailed(f"fence {command.fence} is older than {record.fence}, which this node holds")
        if self._departure is not None and isinstance(command, Prepare | Start | Restart):
            raise StepFailed("this node leaves", retryable=True, data={"host_fault": "the host stops"})
        running = record is not None and record.phase in ("starting", "running", "held")
        if isinstance(command, Prepare) and running and record is not None and record.fence == command.fence:
            raise StepFailed(f"this node already runs the job under fence {record.fence}")
        if job is None or (job.cancel.is_set() and isinstance(command, Prepare)):
            job = self.jobs[command.job_id] = Job(self._host, command.job_id, after=job)
        job.confirmed = True
        return job

    # --- bids ---

    async def _bid(self, call: CallForBids) -> None:
        head = {"auction_id": call.auction_id}
        try:
            if self.draining:
                raise bidding.Declined("this node is draining")
            if self._calls >= MOST_CALLS:
                raise bidding.Declined("this node has too many calls to answer")
            self._calls += 1
            try:
                offer = await run_in(BIDDING, bidding.consider, self._host, call)
            finally:
                self._calls -= 1
            signed = offer.signed.model_dump(mode="json")
            await self._link.send({"type": "bid", **head, "signed": signed, "missing_bytes": offer.missing_bytes})
        except bidding.Declined as reason:
            await self._decline(head, str(reason))
        except LinkDown:
            return
        except (RuntimeFault, *FAILURES) as error:
            log.warning("no bid: %s", error)
            await self._decline(head, "this node could not ask its Docker daemon what a bid depends on")
        except Exception as error:
            log.exception("a call for bids failed")
            await self._decline(head, f"this node failed to look at the call ({type(error).__name__})")

    async def _decline(self, head: dict[str, Any], reason: str) -> None:
        try:
            await self._link.send({"type": "decline", **head, "reason": reason[:2000]})
        except LinkDown:
            return

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("a task of the agent failed", exc_info=task.exception())
