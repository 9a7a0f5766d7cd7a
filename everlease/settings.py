"""Settings that every service shares. Frozen, typed, built once in each entry point from the environment or a file."""

from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from everlease.domain.reserve import Posted


class ServiceSettings(BaseSettings):
    """Base of each service's settings; a service adds its own fields and its own prefix."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore")

    deployments: Path
    rpc_urls: list[str]
    database_url: SecretStr
    log_level: str = "INFO"
    log_json: bool = False


class PriceSettings(ServiceSettings):
    """What the deployment posts of prices. The names are the same for all services: one fixes reserves by them, one
    shows them. Base units an hour for each CPU, GiB of memory and GPU; seconds in which a reserve rises to an order's
    maximum, and in a recovery.
    """

    model_config = SettingsConfigDict(populate_by_name=True)

    posted_cpu_rate: int = Field(default=100_000, ge=0, validation_alias="EVERLEASE_POSTED_CPU_RATE")
    posted_gib_rate: int = Field(default=20_000, ge=0, validation_alias="EVERLEASE_POSTED_GIB_RATE")
    posted_gpu_rate: int = Field(default=1_000_000, ge=0, validation_alias="EVERLEASE_POSTED_GPU_RATE")
    reserve_rise: float = Field(default=60.0, ge=0, le=60, validation_alias="EVERLEASE_RESERVE_RISE")
    reserve_rise_in_recovery: float = Field(
        default=5.0, ge=0, le=5, validation_alias="EVERLEASE_RESERVE_RISE_IN_RECOVERY"
    )

    @property
    def posted(self) -> Posted:
        """Where reserves start if too few settled leases say what a job costs."""
        return Posted(cpu=self.posted_cpu_rate, gib=self.posted_gib_rate, gpu=self.posted_gpu_rate)
