"""Settings of the agent: typed, frozen, read once in ``python -m provider_agent`` (prefix ``EVERLEASE_AGENT_``)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, EnvSettingsSource, SettingsConfigDict

GIB = 1 << 30


class AgentSettings(BaseSettings):
    """Rates are base units of the asset per hour, sizes bytes.

    ``docker_socket``: the host's own daemon; without it the agent starts one of its own below ``data_dir``, with its
    sockets in ``docker_run_dir`` (a short path). ``docker_network``: the path of the network namespace it lives in.
    ``slice``: the root of the agent's cgroups; ``everlease`` with the host's own daemon, else derived from
    ``data_dir``, since agents on one machine must not share one.
    ``docker_away_s``: how long Docker is waited for once no task of a container is left; then its job is given up here.
    ``node_key`` (hex) is accepted on development chains only; else ``keystore`` and its password, itself or in a
    file. ``prove_runtime``: dump and restore a small container before process checkpoints are offered. ``teardown``: at
    SIGTERM remove the jobs and stop a daemon of our own, instead of leaving them for the next start. ``crash_at`` is
    for tests.
    """

    model_config = SettingsConfigDict(env_prefix="EVERLEASE_AGENT_", frozen=True, extra="ignore")

    data_dir: Path
    gateway_url: str
    store_url: str
    deployments: Path
    rpc_urls: list[str] = []

    provider: str = Field(pattern=r"^0x[0-9a-fA-F]{40}$")
    keystore: Path | None = None
    keystore_password: SecretStr | None = None
    keystore_password_file: Path | None = None
    node_key: SecretStr | None = None

    base_rate: int = Field(default=50_000, ge=0)
    cpu_rate: int = Field(default=20_000, ge=0)
    gib_rate: int = Field(default=5_000, ge=0)
    gpu_rate: int = Field(default=500_000, ge=0)
    collateral: int = Field(default=5_000_000, ge=0)
    watchers: list[str] = []
    collect_exposure: int = Field(default=100_000, ge=0)

    max_jobs: int = Field(default=4, ge=1, le=200)
    cpu_millis: int | None = Field(default=None, ge=1)
    memory_bytes: int | None = Field(default=None, ge=1)
    disk_reserve_bytes: int = Field(default=2 * GIB, ge=0)
    cache_bytes: int = Field(default=20 * GIB, ge=0)

    docker_socket: Path | None = None
    docker_run_dir: Path | None = None
    docker_network: Path | None = None
    slice: str | None = Field(default=None, pattern=r"^[a-z][a-z0-9]{0,31}$")
    docker_away_s: float = Field(default=120.0, gt=0)
    runc: Path = Path("/usr/sbin/runc")
    criu: Path | None = None
    firewall: bool = True
    prove_runtime: bool = True

    trial_after_s: float = Field(default=10.0, ge=0, le=60)
    teardown: bool = False
    crash_at: str | None = None
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"

    @classmethod
    def of_environment(cls, environment: Mapping[str, str]) -> Self:
        """As an agent with this environment reads them. Raises ValidationError, SettingsError."""
        source = EnvSettingsSource(cls)
        source.env_vars = {name.lower(): value for name, value in environment.items()}
        return cls(**source())


def wrong_settings(error: Exception) -> str:
    """Which settings are wrong or missing, and why."""
    if not isinstance(error, ValidationError):
        return str(error)
    return ", ".join(f"EVERLEASE_AGENT_{str(item['loc'][0]).upper()} ({item['msg']})" for item in error.errors())
