"""A container that runs: fresh, or from a checkpoint; armed with its guard before its first instruction."""

import asyncio
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from threading import Event
from typing import Any, NoReturn

from everlease.domain.jobspec import JobSpec
from everlease.domain.manifest import CID
from everlease.store.sealing import JobKeys
from everlease.wire.commands import Start
from provider_agent import guards
from provider_agent.errors import StepFailed
from provider_agent.host import Host
from provider_agent.records import JobRecord
from provider_agent.restorer import Fetched, fetch_checkpoint
from provider_agent.runtime import oci, restore
from provider_agent.runtime.commands import remove_tree
from provider_agent.runtime.container import ContainerSpec, JobContainer, Limits
from provider_agent.runtime.errors import ContainerFault
from provider_agent.stillness import LEAST_LEASE_S

LONGEST_WAIT_S = 600.0
DOCKER_S = 10.0
"""How long a start waits for a Docker daemon that does not answer."""
WITHDRAWN = "the start was cancelled: the marketplace has taken the job away from this node"


@dataclass(frozen=True)
class Launched:
    """A running container. Seconds: fetching and verifying its checkpoint, restoring it; zero for a fresh start."""

    container: str
    fetch_s: float = 0.0
    verify_s: float = 0.0
    restore_s: float = 0.0

    def as_result(self) -> dict[str, Any]:
        """For the result of the start command."""
        return dict(self.__dict__)


async def launch(
    host: Host,
    record: JobRecord,
    start: Start,
    spec: JobSpec,
    keys: JobKeys,
    token: Callable[[], str],
    confirmed: Callable[[], bool],
    cancel: Event,
) -> Launched:
    """Create and start the job's container; what an earlier, killed try left is adopted if it runs, else removed.

    Nothing begins to run unless our fence is ``confirmed``, nor once ``cancel`` is set.
    Raises StepFailed, StoreError, RuntimeFault.
    """

    def allowed() -> bool:
        return confirmed() and not cancel.is_set()

    await _wait_for_docker(host, record, cancel)
    earliest = host.clock.boottime() + start.wait_s
    wanted = container_spec(record, spec, start.mode)
    running = await asyncio.to_thread(_clear_leftovers, host, record, wanted.outer)
    if running is not None:
        return Launched(running)
    mounted = host.folders.mounted(record.job_id, record.fence)
    fetched: Fetched | None = None
    if start.checkpoint is None:
        await asyncio.to_thread(remove_tree, mounted)
        container = await asyncio.to_thread(host.engine.create, wanted, mounted)
    else:
        fetched = await asyncio.to_thread(_fetch, host, start, spec, keys, token, cancel)
        host.crash.reach("start.fetched")
        container = await asyncio.to_thread(restore.prepare, host.engine, wanted, fetched.dump, mounted)
    daemon = await asyncio.to_thread(host.daemon)
    host.journal.put_job(record.model_copy(update={"container": container.id, "daemon": daemon or ""}))
    host.crash.reach("start.created")
    await _wait_until(host, earliest, cancel)
    await _wait_for_lease(host, start.timeout_s, allowed, cancel)
    took = await asyncio.to_thread(_run, host, container, fetched is not None, allowed)
    host.crash.reach("start.launched")
    if fetched is None:
        return Launched(container.id)
    await asyncio.to_thread(shutil.rmtree, fetched.dump, True)
    return Launched(container.id, round(fetched.fetch_s, 3), round(fetched.verify_s, 3), round(took, 3))


def container_spec(record: JobRecord, spec: JobSpec, mode: str) -> ContainerSpec:
    """The container as the order asks for it; the image is named by its id, not by a name that could move."""
    resources = spec.resources
    limits = Limits(resources.cpu_millis / 1000, resources.memory_bytes, resources.disk_bytes, resources.pids)
    return ContainerSpec(
        job_id=record.job_id,
        fence=record.fence,
        image=spec.image_digest,
        limits=limits,
        command=spec.command,
        env=spec.env,
        workdir=spec.workdir or None,
        user=spec.user or None,
        gpus=record.gpus,
        mode=mode,
    )


async def _wait_for_docker(host: Host, record: JobRecord, cancel: Event) -> None:
    """A daemon that hangs would keep its client, and the marketplace, for many minutes. Raises StepFailed."""
    give_up = host.clock.boottime() + DOCKER_S
    while await asyncio.to_thread(host.daemon) is None:
        if cancel.is_set() or host.clock.boottime() > give_up:
            await _docker_failed(host, record, "the host's Docker daemon does not answer")
        await asyncio.sleep(0.5)


async def blame_docker(host: Host, record: JobRecord, error: Exception) -> None:
    """A start that failed because Docker went away says nothing about checkpoint or program. Raises StepFailed."""
    now = await asyncio.to_thread(host.daemon)
    if now is None or (record.daemon and record.daemon != now):
        await _docker_failed(host, record, "the host's Docker daemon went away during the start", error)


async def _docker_failed(host: Host, record: JobRecord, fault: str, error: Exception | None = None) -> NoReturn:
    """What Docker's remains may still have got going must not outlive this answer. Raises StepFailed."""
    if record.container is not None:
        await asyncio.to_thread(host.engine.kill, record.container)
    told = fault if error is None else f"{fault}: {error}"
    raise StepFailed(told, retryable=True, data={"host_fault": fault}) from error


def _clear_leftovers(host: Host, record: JobRecord, outer: str) -> str | None:
    """Remove every container of this job but one that this very start had set running before the agent was killed."""
    found: str | None = None
    for container in host.engine.list(job_id=record.job_id):
        if container.id == record.container and container.status in ("running", "exited"):
            found = container.id
        else:
            host.engine.remove(container.id)
    if found is None:
        # One that somebody else removed has a guard still, which would freeze the next in the same outer cgroup.
        for gone in guards.sharing(host.engine.state, outer):
            host.engine.remove(gone)
    return found


def _fetch(host: Host, start: Start, spec: JobSpec, keys: JobKeys, token: Callable[[], str], cancel: Event) -> Fetched:
    store = host.cached(token)
    try:
        return fetch_checkpoint(host, start, CID(str(start.checkpoint)), spec, keys, store, cancel)
    finally:
        store.close()


def _run(host: Host, container: JobContainer, restored: bool, allowed: Callable[[], bool]) -> float:
    """Lease and guard first, then the job; the seconds of a restore. Raises StepFailed: it does not run."""
    folder = oci.container_folder(host.engine.state, container.id)
    guards.extend(folder, host.deadline())
    guards.ensure(folder)
    took = 0.0
    if allowed():
        # Under load the lease may have run out meanwhile; nothing runs yet, and the start command names our fence.
        guards.thaw(folder, host.deadline())
        if allowed():
            if restored:
                took = restore.start(host.engine, container).total_s
            else:
                host.engine.start(container.id)
    if not allowed():
        # Whoever withdrew the permission froze the job, perhaps before our thaw.
        with suppress(ContainerFault):
            guards.freeze(folder)
        host.engine.kill(container.id)
        raise StepFailed(WITHDRAWN)
    return took


async def _wait_for_lease(host: Host, limit_s: float, allowed: Callable[[], bool], cancel: Event) -> None:
    """Wait for an acknowledged heartbeat: without time on its lease the guard freezes a container before it starts."""
    give_up = host.clock.boottime() + limit_s
    while True:
        if cancel.is_set():
            raise StepFailed(WITHDRAWN)
        if allowed() and host.deadline() - host.clock.boottime() >= LEAST_LEASE_S:
            return
        if host.clock.boottime() > give_up:
            raise StepFailed("the start was given up: the marketplace acknowledges no heartbeat", retryable=True)
        await asyncio.sleep(0.1)


async def _wait_until(host: Host, moment: float, cancel: Event) -> None:
    """Wait for the earliest time (CLOCK_BOOTTIME: no clock that can be set) at which the former host is fenced."""
    if moment - host.clock.boottime() > LONGEST_WAIT_S:
        raise StepFailed("the start is set too far in the future", retryable=True)
    while not cancel.is_set():
        left = moment - host.clock.boottime()
        if left <= 0:
            return
        await asyncio.sleep(min(left, 0.2))
    raise StepFailed(WITHDRAWN)
