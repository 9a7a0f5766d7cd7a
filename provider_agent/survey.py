"""What this host says of itself, measured again whenever another Docker daemon answers, or runc or CRIU is exchanged.

While nothing has changed a look costs one ping of the daemon and two stats. What is said claims only what a trial has
shown with these very tools (trial.recalled has the one exception); the trial is made once there are no jobs on this
host, and again after a pause where it failed: a disk may have been full, a machine busy.
"""

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from time import monotonic
from typing import Any

from everlease.docker_api import Client, EngineUnsupported
from provider_agent import hardware, trial
from provider_agent.runtime.capability import RuntimeCapabilities, capabilities
from provider_agent.runtime.checkpoint import Checkpointer
from provider_agent.runtime.container import ContainerEngine
from provider_agent.runtime.errors import DaemonUnsupported
from provider_agent.settings import AgentSettings

log = logging.getLogger(__name__)
EVERY_S = 5.0
ROOM_BYTES = 256 << 20
"""A change of the free disk that is worth telling, as is one of a twentieth."""
AGAIN_S, AGAIN_AT_MOST_S = 600.0, 6 * 3600.0
"""The pause after a trial that failed; each further one is twice as long."""
Present = tuple[object, ...]


class Survey:
    """The facts of this host. Methods block; call them from one thread at a time. ``daemon``: see host.Host."""

    def __init__(
        self,
        settings: AgentSettings,
        client: Client,
        engine: ContainerEngine,
        dumper: Checkpointer,
        daemon: Callable[[], str | None],
    ) -> None:
        self._settings, self._client, self._engine, self._dumper = settings, client, engine, dumper
        self._daemon = daemon
        self._measured: Present | None = None
        self._found: RuntimeCapabilities | None = None
        self._due = False
        self._not_before, self._pause = 0.0, AGAIN_S

    def first(self) -> dict[str, Any]:
        """The facts at the agent's start, when no heartbeat is due yet: a trial is made unless jobs run on this host.

        Raises RuntimeFault, DockerException, RequestException, OSError.
        """
        facts = self._measure()
        return self._try_out() if self._due and not trial.busy(self._engine) else facts

    def again(self, *, idle: bool) -> dict[str, Any] | None:
        """The facts anew, where others answer than before or a trial is due and the host ``idle``; else None.

        Raises what ``first`` does; a daemon that could not be measured is tried again by the next call.
        """
        now = self._present()
        if now is not None and now != self._measured:
            return self._measure()
        return self._try_out() if self._due and idle and monotonic() >= self._not_before else None

    def _present(self) -> Present | None:
        """Which daemon answers, and the files of runc and CRIU; None while no daemon does."""
        daemon, tools = self._daemon(), self._dumper.tools
        return None if daemon is None else (daemon, *(_look(path) for path in (tools.runc, tools.criu) if path))

    def _measure(self) -> dict[str, Any]:
        """Versions as they are now, worth what an earlier trial showed."""
        present = self._present()
        try:
            self._client.negotiate()
        except EngineUnsupported as error:
            raise DaemonUnsupported("its socket", str(error)) from error
        found, due = capabilities(self._client, self._dumper.tools), False
        self._found = found
        if self._settings.prove_runtime:
            found, due = trial.recalled(found, self._engine)
        facts = self._facts(found)
        self._measured, self._due = present, due
        self._not_before, self._pause = 0.0, AGAIN_S
        return facts

    def _try_out(self) -> dict[str, Any]:
        assert self._found is not None
        self._not_before, self._pause = monotonic() + self._pause, min(2 * self._pause, AGAIN_AT_MOST_S)
        found = trial.tried(self._found, self._engine, self._dumper)
        self._due = not (found.process_mode and found.other_users)
        return self._facts(found)

    def _facts(self, found: RuntimeCapabilities) -> dict[str, Any]:
        if found.reason:
            log.warning("%s", found.reason)
        return offered(hardware.measure(found, self._settings.data_dir).to_dict(), self._settings)


def _look(path: Path) -> tuple[int, int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


async def follow(
    survey: Survey,
    facts: dict[str, Any],
    free: Callable[[], int],
    idle: Callable[[], bool],
    tell: Callable[[], Awaitable[None]],
) -> None:
    """Keep ``facts`` true, and ``tell`` whenever they, or the ``free`` bytes of the disk, are others; for ever."""
    told = await asyncio.to_thread(free)
    while True:
        await asyncio.sleep(EVERY_S)
        room = await asyncio.to_thread(free)
        try:
            news = await asyncio.to_thread(survey.again, idle=idle())
        except DaemonUnsupported as error:
            news = {"runtime": {**facts["runtime"], "process_mode": False, "other_users": False, "reason": str(error)}}
        except Exception as error:  # jobs run beside this: nothing that goes wrong here may end the agent
            log.warning("this host's facts can't be measured, which is tried again: %s", error)
            continue
        if news is not None and _others(facts, news):
            facts.update(news)
            log.warning("this host's facts have changed: %s", facts["runtime"])
        elif abs(room - told) < max(ROOM_BYTES, told // 20):
            continue
        told = room
        await tell()


def _others(facts: dict[str, Any], news: dict[str, Any]) -> bool:
    """Whether there is news beside the free disk, which changes all the time."""
    return any(facts[name] != value for name, value in news.items() if name != "disk_free_bytes")


def offered(facts: dict[str, Any], settings: AgentSettings) -> dict[str, Any]:
    """The measured facts, with less to offer where the provider says so."""
    if settings.cpu_millis is not None:
        facts = facts | {"cores": max(settings.cpu_millis // 1000, 1)}
    if settings.memory_bytes is not None:
        facts = facts | {"memory_bytes": min(settings.memory_bytes, int(facts["memory_bytes"]))}
    return facts
