"""What every job of this agent works with: Docker, CRIU, the journal, the store, the clocks, and where files go."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from everlease.domain.jobspec import JobSpec
from everlease.store.http import HttpBlockStore
from everlease.store.wrappers import CachingStore, RetryingStore
from provider_agent import disks
from provider_agent.clock import Clock
from provider_agent.crash import CrashPoints
from provider_agent.identity import Identity
from provider_agent.journal import Journal
from provider_agent.runtime.checkpoint import Checkpointer
from provider_agent.runtime.container import ContainerEngine
from provider_agent.settings import AgentSettings


class Messenger(Protocol):
    """The way to the gateway, as jobs see it."""

    def post(self, key: str, body: dict[str, Any]) -> None:
        """Send for certain: kept in the journal until acknowledged."""
        ...

    async def deliver(self, body: dict[str, Any]) -> None:
        """Send and wait until acknowledged."""
        ...

    async def fresh_token(self, job_id: str, fence: int) -> str:
        """A new block store token. Raises LinkDown, StepFailed."""
        ...


@dataclass(frozen=True)
class Folders:
    """The agent's data folder and what lies where in it."""

    root: Path

    @property
    def runtime(self) -> Path:
        return self.root / "runtime"

    @property
    def blocks(self) -> Path:
        return self.root / "cache" / "blocks"

    @property
    def images(self) -> Path:
        return self.root / "cache" / "images"

    def job(self, job_id: str) -> Path:
        """Everything of one job but cached blocks and its image."""
        return self.root / "jobs" / job_id

    def dumps(self, job_id: str) -> Path:
        return self.job(job_id) / "dumps"

    def mounted(self, job_id: str, fence: int) -> Path:
        """What the container sees as /checkpoint."""
        return self.job(job_id) / f"checkpoint-{fence}"

    def known(self, job_id: str) -> Path:
        """The map of blocks that are already stored."""
        return self.job(job_id) / "known"

    def last_commit(self, job_id: str) -> Path:
        return self.job(job_id) / "last_commit.json"


@dataclass(frozen=True)
class Host:
    """One per agent. ``deadline``: until when (CLOCK_BOOTTIME) containers may run by the last answered heartbeat.
    ``daemon``: which Docker daemon answers now (see runtime.daemon_identity); blocks for some seconds at most.
    ``facts``: kept true in place by survey.follow, value by value. ``disks``: see disks.of_jobs.
    """

    settings: AgentSettings
    identity: Identity
    chain_id: int
    escrow: str
    journal: Journal
    clock: Clock
    crash: CrashPoints
    engine: ContainerEngine
    dumper: Checkpointer
    facts: dict[str, Any]
    disks: tuple[Path, ...]
    messenger: Messenger
    deadline: Callable[[], float]
    daemon: Callable[[], str | None]
    folders: Folders = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "folders", Folders(self.settings.data_dir))

    def store(self, token: Callable[[], str]) -> RetryingStore:
        """The block store with short retries; `token` is asked before each call."""
        return RetryingStore(HttpBlockStore(self.settings.store_url, token), attempts=4)

    def cached(self, token: Callable[[], str]) -> CachingStore:
        """The same, with this host's cache of blocks in front of it."""
        return CachingStore(self.store(token), self.folders.blocks)

    def free_disk(self) -> int:
        """Bytes free on the fullest of the disks that hold dumps, layers and caches, less the reserve."""
        return disks.free(self.disks) - self.settings.disk_reserve_bytes


def disk_needed(spec: JobSpec, fetched: int) -> int:
    """Bytes a job may need at once: what it writes, one dump of its memory and its files, what is fetched before."""
    return 2 * spec.resources.disk_bytes + spec.resources.memory_bytes + fetched
