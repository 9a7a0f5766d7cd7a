"""One job on this host: what each command does to it. A repeated step is answered by the journal, not here."""

import asyncio
import logging
import shutil
import sqlite3
from contextlib import suppress
from pathlib import Path
from threading import Event
from typing import Any

from everlease.domain.jobspec import JobSpec
from everlease.wire.commands import Command, Freeze, Prepare, Restart, Start, Stop, TakeCheckpoint, Thaw
from everlease.wire.node import HeldContainer, JobBeat
from provider_agent import guards, preparation, terms
from provider_agent.checkpointer import Checkpoints
from provider_agent.commit import Committed
from provider_agent.errors import AgentError, CheckpointFailed, StepFailed
from provider_agent.host import Host
from provider_agent.launch import blame_docker, launch
from provider_agent.life import Life
from provider_agent.records import JobRecord
from provider_agent.runtime import oci
from provider_agent.runtime.commands import remove_tree
from provider_agent.runtime.container import FAILURES
from provider_agent.runtime.errors import ContainerFault, RuntimeFault
from provider_agent.stillness import Stillness

log = logging.getLogger(__name__)


class Job:
    """Commands of one job run one after another; freeze, stop and a refused fence do not wait for slow ones.

    ``confirmed``: the gateway said in this session that our fence is current; without that nothing is thawed.
    ``after``: the same job under an older fence, which is being dropped; what that has begun ends first.
    """

    def __init__(self, host: Host, job_id: str, *, after: "Job | None" = None) -> None:
        self.host, self.job_id = host, job_id
        self.cancel = Event()
        self.confirmed = False
        self.checkpoints: Checkpoints | None = None
        self.life: Life | None = None
        self._turn: asyncio.Lock = asyncio.Lock() if after is None else after._turn
        self._token = ""
        self.still = Stillness(host.deadline, lambda: self.confirmed)

    # --- what the supervisor asks ---

    @property
    def record(self) -> JobRecord:
        """The job's journalled record. Raises StepFailed once it was dropped."""
        record = self.host.journal.job(self.job_id)
        if record is None:
            raise StepFailed("this node does not hold the job")
        return record

    @property
    def folder(self) -> Path | None:
        """The folder of its container, None before there is one."""
        record = self.host.journal.job(self.job_id)
        container = None if record is None else record.container
        return None if container is None else oci.container_folder(self.host.engine.state, container)

    def adopt(self) -> None:
        """After a restart of the agent: take up the job as the journal has it. Raises StepFailed."""
        record = self.record
        shutil.rmtree(self.host.folders.dumps(self.job_id), ignore_errors=True)
        self.still.left = record.leaving
        if record.start is not None and record.container is not None and record.phase != "starting":
            self.host.dumper.settle_later(record.container)
            self._live(record.start)

    def held(self) -> HeldContainer:
        """The line about this job in Hello."""
        record = self.record
        state = record.state(frozen=record.phase == "running" and self.frozen)
        return HeldContainer.model_validate({"job_id": self.job_id, "fence": record.fence, "state": state})

    @property
    def frozen(self) -> bool:
        """Whether the guard fenced the container."""
        return self.folder is not None and guards.fenced(self.folder)

    async def beat(self) -> JobBeat:
        """The line about this job in a heartbeat."""
        record = self.record
        if self.life is None:
            return JobBeat(job_id=self.job_id, fence=record.fence, serving=False)
        return await self.life.beat(record)

    def extend(self, deadline: float) -> bool:
        """A heartbeat was acknowledged: the container may run until ``deadline``. Whether it waits for a thaw."""
        folder = self.folder
        if folder is None or not folder.is_dir() or not self.confirmed:
            return False
        guards.extend(folder, deadline)
        return self.record.phase in ("running", "starting") and guards.fenced(folder)

    async def resume(self) -> None:
        """Thaw what the guard froze: the gateway confirmed the fence and acknowledged a heartbeat since."""
        folder = self.folder
        if folder is None or not self.confirmed or self.record.phase not in ("running", "starting"):
            return
        try:
            if not await self.still.thaw(folder, fenced=True):
                return
        except ContainerFault as error:
            log.warning("job %s can't be thawed: %s", self.job_id[:10], error)
            return
        self.notice("thawed", "the link is back and the fence is still current")

    async def refused(self) -> None:
        """Another host has the job: freeze at once, then drop every trace but cached blocks and the image.

        What was prepared under a newer fence meanwhile stays; that preparation has cleared the older away.
        """
        self.confirmed = False
        self.cancel.set()
        refused = self.host.journal.job(self.job_id)
        await self.freeze_now()
        if refused is not None and refused.container is not None:
            # At once: a restore that waits in the frozen tasks would hold the turn.
            await asyncio.to_thread(self.host.engine.kill, refused.container)
        async with self._turn:
            present = self.host.journal.job(self.job_id)
            if refused is None or present is None or present.prepare.fence == refused.prepare.fence:
                await self._remove()
            else:
                await self._end_life()

    # --- commands ---

    async def carry_out(self, command: Command) -> dict[str, Any]:
        """Do one command; its result's data. Raises StepFailed, AgentError, RuntimeFault, StoreError."""
        if isinstance(command, Freeze):
            return await self._freeze()
        if isinstance(command, Stop):
            self.cancel.set()
        async with self._turn:
            match command:
                case Prepare():
                    return await self._prepare(command)
                case Start():
                    return await self._start(command)
                case TakeCheckpoint():
                    return (await self._checkpoint(command.hold)).as_result()
                case Thaw():
                    return await self._thaw(command)
                case Stop():
                    return await self._stop(command)
                case Restart():
                    return await self._restart(command)
        raise StepFailed("this agent does not know the command")

    async def _freeze(self) -> dict[str, Any]:
        """The award is void. A start that is under way is given up first: its answer would say that nothing runs."""
        await self.freeze_now()
        if self.life is None:
            self.cancel.set()
            async with self._turn:
                await self.freeze_now()
        if self.life is not None:
            self._update(phase="held")
        return {}

    async def _prepare(self, command: Prepare) -> dict[str, Any]:
        terms.agree_on_lease(self.host.journal, command)
        preparation.check(self.host, command)
        if self.host.journal.job(self.job_id) is not None:
            # A newer fence, or the same preparation again: what is here of an older award is void.
            await self._end_life()
            await asyncio.to_thread(self.host.engine.remove_job, self.job_id)
            await asyncio.to_thread(remove_tree, self.host.folders.job(self.job_id))
        self._token = command.store_token
        return await preparation.prepare(self.host, command, lambda: self._token, self.cancel)

    async def _start(self, command: Start) -> dict[str, Any]:
        host, record = self.host, self.record
        spec = terms.agreed_spec(host.journal, self.job_id, command.spec)
        terms.agree_on_lease(host.journal, command)
        terms.check_restorable(host, command.checkpoint_requirements)
        self._token = command.store_token
        again = record.start is not None and record.start.step == command.step
        record = record.model_copy(
            update={
                "phase": "starting",
                "fence": command.fence,
                "start": command,
                "container": record.container if again else None,
                "mode": terms.checkpoint_mode(command, spec),
                "tried": command.checkpoint is not None and command.mode == "process",
                "head": command.checkpoint,
                "head_seq": command.checkpoint_seq,
                "pending": None,
            }
        )
        host.journal.put_job(record)
        host.crash.reach("start.accepted")
        return await self._run(command, spec)

    async def _run(self, start: Start, spec: JobSpec) -> dict[str, Any]:
        """From a start command to a running container that is watched."""
        keys = self.host.identity.open_keys(start, self.host.chain_id, self.host.escrow)
        try:
            confirmed, token = (lambda: self.confirmed), (lambda: self._token)
            launched = await launch(self.host, self.record, start, spec, keys, token, confirmed, self.cancel)
        except (RuntimeFault, *FAILURES) as error:
            await blame_docker(self.host, self.record, error)
            raise
        self._update(phase="running", started_at=self.host.clock.unix(), container=launched.container, exit_code=None)
        self._live(start)
        self.host.crash.reach("start.done")
        return launched.as_result() | {"started_at": self.record.started_at}

    def _live(self, start: Start) -> None:
        """Watch the container, follow its output, checkpoint it."""
        keys = self.host.identity.open_keys(start, self.host.chain_id, self.host.escrow)
        self._token = self._token or start.store_token
        self.checkpoints = Checkpoints(self.host, self.job_id, keys, self.cancel)
        self.life = Life(self.host, self, self.checkpoints)
        self.life.begin()

    async def take(self, *, hold: bool = False, final: bool = False) -> Committed:
        """A committed checkpoint. Raises CheckpointFailed, JobGone."""
        if self.checkpoints is None:
            raise CheckpointFailed("the job does not run here", retryable=False)
        store = self.host.store(lambda: self._token)
        try:
            return await self.checkpoints.take(store, self._renew, hold=hold, final=final)
        finally:
            store.close()

    async def _renew(self) -> None:
        self._token = await self.host.messenger.fresh_token(self.job_id, self.record.fence)

    async def _checkpoint(self, hold: bool) -> Committed:
        # After a restart of the agent the guard freezes the job, now or soon, until a heartbeat is answered.
        await self.still.may_run(self.folder, self.cancel)
        if self.record.phase not in ("running", "held"):
            raise StepFailed(f"the job is {self.record.phase}, so there is nothing to checkpoint")
        if self.still.left:
            raise StepFailed("this node leaves, the job stands at its last checkpoint here", retryable=True)
        if hold:
            self._update(phase="held")
        try:
            taken = await self.take(hold=hold)
            if hold and self.life is not None:
                await self.life.say_all()
            return taken
        except AgentError as error:
            if hold:
                await self.go_on()
            raise StepFailed(str(error), retryable=getattr(error, "retryable", False)) from error

    async def hold_last(self) -> None:
        """The last checkpoint before the agent leaves; the job stays frozen after it. Raises AgentError: it goes on."""
        async with self._turn:
            if self.record.phase != "running":
                return
            # From the first moment on: an agent that is killed meanwhile takes the job up again when it is back.
            self._update(phase="held", leaving=True)
            try:
                if self.record.mode == "files":
                    await self.freeze_now()
                await self.take(hold=True)
            except AgentError:
                self._update(leaving=False)
                await self.go_on()
                raise
            self.still.left = True
            if self.life is not None:
                await self.life.say_all()

    async def stand_still(self) -> bool:
        """Freeze what runs, for good as far as this agent is concerned; whether it stands still now."""
        record = self.record
        if record.phase == "starting":
            self.cancel.set()
            await self.freeze_now()
            return False
        still = await self.still.leave(self.folder)
        if record.phase in ("running", "held"):
            # A full disk must not keep the goodbye back; what the market knows of it counts anyway.
            with suppress(OSError, sqlite3.Error):
                self._update(phase="held", leaving=True, goodbye=False)
        return still

    async def come_back(self) -> None:
        """The agent left and is back before the job was given to another host: it goes on where it was frozen."""
        async with self._turn:
            if self.confirmed and self.record.leaving and self.record.phase == "held":
                self._update(leaving=False)
                self.still.left = False
                await self.go_on()

    async def go_on(self) -> None:
        """Let a held job run again, unless this agent has left it or the guard has a reason to keep it frozen."""
        if not self.still.left:
            self._update(phase="running")
            with suppress(ContainerFault):
                await self.still.thaw(self.folder)

    async def _thaw(self, command: Thaw) -> dict[str, Any]:
        record, folder = self.record, self.folder
        if folder is None or record.start is None:
            raise StepFailed("the job has no container here that could be thawed")
        if self.still.left:
            raise StepFailed("this node leaves: nothing is thawed any more", retryable=True)
        self._update(phase="running", fence=command.new_fence)
        lease = self.host.journal.lease(record.start.lease_id)
        if lease is not None:
            self.host.journal.put_lease(lease.model_copy(update={"fence": command.new_fence}))
        self.confirmed = True
        await self.still.thaw(folder, fenced=True)
        self.notice("thawed", "the job goes on where it was held")
        return {}

    async def _stop(self, command: Stop) -> dict[str, Any]:
        self.host.crash.reach("stop.accepted")
        record = self.host.journal.job(self.job_id)
        if record is not None and record.container is not None and record.phase == "running" and not self.frozen:
            await asyncio.to_thread(self.host.engine.stop, record.container, grace_s=int(command.grace_s))
        await self._remove()
        return {}

    async def _restart(self, command: Restart) -> dict[str, Any]:
        record = self.record
        if record.start is None:
            raise StepFailed("the job was never started here")
        if record.phase == "running":
            raise StepFailed("the job runs already")
        terms.check_restorable(self.host, command.checkpoint_requirements)
        await self._end_life()
        start = record.start.model_copy(
            update={
                "checkpoint": command.checkpoint,
                "checkpoint_seq": command.checkpoint_seq,
                "checkpoint_node": command.checkpoint_node,
                "step": command.step,
                "wait_s": 0.0,
                "mode": record.start.mode if record.mode == "none" else record.mode,
            }
        )
        again = record.start.step == command.step
        # What another container says comes after what the last one said.
        said = self.record.stdout if again else self.record.stdout.after()
        fresh = {"stdout": said, "exit_reported": False, "exit_code": None}
        fresh |= {"host_fault": "", "leaving": False, "restarts": record.restarts + 1}
        self.still.left = False
        self._update(phase="starting", start=start, container=record.container if again else None, **fresh)
        return await self._run(start, terms.agreed_spec(self.host.journal, self.job_id, start.spec))

    # --- shared ---

    def notice(self, kind: str, detail: str, data: dict[str, Any] | None = None, *, key: str = "") -> None:
        """Tell the gateway for certain. ``key`` makes repeats of the same fact one message."""
        name = key or f"{self.host.clock.unix():.6f}"
        body = {"type": "notice", "job_id": self.job_id, "fence": self.record.fence, "kind": kind}
        self.host.messenger.post(
            f"notice:{self.job_id}:{kind}:{name}", {**body, "detail": detail[:2000], "data": data or {}}
        )

    def _update(self, **changes: Any) -> None:
        self.host.journal.put_job(self.record.model_copy(update=changes))

    async def freeze_now(self) -> None:
        """Freeze the container, if there is one that runs."""
        folder = self.folder
        if folder is not None:
            with suppress(ContainerFault):
                await asyncio.to_thread(guards.freeze, folder)

    async def let_go(self) -> None:
        """The agent ends: stop watching, give up what is under way, leave the container to its guard."""
        self.cancel.set()
        await self._end_life()

    async def _end_life(self) -> None:
        if self.life is not None:
            await self.life.end()
            self.life = None

    async def _remove(self) -> None:
        """Container, network, files and record; again is fine."""
        self.cancel.set()
        await self._end_life()
        await asyncio.to_thread(self.host.engine.remove_job, self.job_id)
        await asyncio.to_thread(remove_tree, self.host.folders.job(self.job_id))
        self.host.crash.reach("stop.removed")
        self.host.journal.drop_job(self.job_id)
