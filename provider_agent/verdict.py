"""How a job's container ended, and whose doing it was: the program's, or that of a host whose Docker went away.

A daemon that stops, restarts or dies takes its containers along, with exit codes that a program has too (0, 137, 143).
So an exit counts as the program's only if the daemon that ran the container still answers a moment later. A daemon that
stays away from a container without tasks is the host's fault, too: the job is better off elsewhere.
"""

import asyncio
from contextlib import suppress
from dataclasses import dataclass

from provider_agent import guard
from provider_agent.host import Host
from provider_agent.records import JobRecord
from provider_agent.runtime import daemon_identity, oci, parked
from provider_agent.runtime.errors import ContainerFault
from provider_agent.threads import BEATING, LOOKING, run_in

POLL_S = 0.5
MOMENT_S = 1.0
"""Docker ceases to answer before it stops containers: an exit it still tells of a moment later is none of its doing."""
SAME_EVERY = 10
KILLED = 137
ANSWER_S = 5.0
"""A look that takes longer has no answer yet: a daemon that hangs keeps it for many minutes, and it is not repeated."""
AWAY = "the host's Docker daemon does not come back"


class _NoAnswer(Exception):
    """Docker did not say what became of the container."""


@dataclass(frozen=True)
class End:
    """``fault``: why it was the host's doing, in one clause; empty for the program's own exit."""

    code: int
    oom_killed: bool = False
    fault: str = ""


async def wait(host: Host, job_id: str) -> End:
    """Wait for the end of the job's container. While Docker is away nothing has ended: it is asked again, without end
    while the container has tasks, else for the setting ``docker_away_s``.
    """
    polls, away_since = 0, None
    looking: asyncio.Task[End | None] | None = None
    try:
        while True:
            record = _record(host, job_id)
            looking = looking or asyncio.create_task(_look(host, record, refresh=polls % SAME_EVERY == 0))
            try:
                end, away_since = await _answer(looking), None
            except _NoAnswer:
                away_since = await _still_away(host, record, away_since)
                end = await _given_up(host, record, away_since)
            if end is not None:
                return end
            if looking.done():
                looking, polls = None, polls + 1
                await asyncio.sleep(POLL_S)
    finally:
        if looking is not None:
            looking.cancel()


async def _answer(looking: "asyncio.Task[End | None]") -> End | None:
    """What a look found. Raises _NoAnswer, and leaves it under way, where it takes too long."""
    await asyncio.wait([looking], timeout=ANSWER_S)
    if not looking.done():
        raise _NoAnswer
    return looking.result()


async def _still_away(host: Host, record: JobRecord, since: float | None) -> float | None:
    """Since when Docker is away from a container without tasks; None while it has some: it goes on without Docker."""
    if await run_in(BEATING, _holds_tasks, host, record):
        return None
    return host.clock.boottime() if since is None else since


async def _given_up(host: Host, record: JobRecord, away_since: float | None) -> End | None:
    if away_since is None or host.clock.boottime() - away_since < host.settings.docker_away_s:
        return None
    if record.container:
        # Nothing may begin to run in it any more, whenever Docker is back.
        await asyncio.to_thread(host.engine.kill, record.container)
    return End(KILLED, fault=AWAY)


async def recall(host: Host, record: JobRecord) -> End:
    """The end that was judged before, by an agent that was killed since."""
    killed = False
    with suppress(ContainerFault):
        killed = (await asyncio.to_thread(host.engine.inspect, record.container or "")).oom_killed
    return End(KILLED if record.exit_code is None else record.exit_code, killed, record.host_fault)


async def _look(host: Host, record: JobRecord, *, refresh: bool) -> End | None:
    """One look at the container; None while it has not ended. Raises _NoAnswer."""
    if not refresh and await run_in(BEATING, _holds_tasks, host, record):
        return None  # nothing has ended, and Docker is spared the question
    try:
        found = await run_in(LOOKING, host.engine.inspect, record.container or "")
    except ContainerFault as error:
        if error.retryable:
            raise _NoAnswer from error
        if record.container:
            # Docker does not know it any more; that none of its tasks runs on is seen to here.
            await asyncio.to_thread(host.engine.kill, record.container)
        return End(KILLED, fault="the container is not on its host any more")
    if found.exit_code is None:
        if refresh and found.status == "running":
            await _note_daemon(host, record)
        return None
    fault = await _fault(host, record, found.exit_code)
    return None if fault is None else End(found.exit_code, found.oom_killed, fault)


def _holds_tasks(host: Host, record: JobRecord) -> bool:
    outer = guard.outer_of(oci.container_folder(host.engine.state, record.container or ""))
    try:
        return outer is not None and outer.populated()
    except OSError:
        return False


async def _note_daemon(host: Host, record: JobRecord) -> None:
    """A daemon with live-restore comes back to containers that run: it is theirs from then on."""
    now = await run_in(LOOKING, host.daemon)
    latest = host.journal.job(record.job_id)
    if now is not None and latest is not None and latest.container == record.container and latest.daemon != now:
        host.journal.put_job(latest.model_copy(update={"daemon": now}))


async def _fault(host: Host, record: JobRecord, code: int) -> str | None:
    """Why an exit was the host's doing, or "" for the program's; None while that can't be told. Raises _NoAnswer."""
    folder = oci.container_folder(host.engine.state, record.container or "")
    if parked.unsettled(folder):
        return None
    if broken := parked.fault(folder, code):
        return broken
    before = await run_in(LOOKING, host.daemon)
    if before is None:
        raise _NoAnswer
    if record.daemon and before != record.daemon:
        return _anew(record.daemon, before)
    await asyncio.sleep(MOMENT_S)
    if await run_in(LOOKING, host.daemon) != before:
        return None
    return "the host is shutting down" if await asyncio.to_thread(daemon_identity.shutting_down) else ""


def _anew(before: str, now: str) -> str:
    same_boot = before.partition("/")[0] == now.partition("/")[0]
    return "the host's Docker daemon was started anew" if same_boot else "the host was started anew"


def _record(host: Host, job_id: str) -> JobRecord:
    record = host.journal.job(job_id)
    assert record is not None
    return record
