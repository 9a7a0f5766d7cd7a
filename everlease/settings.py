"""Settings that every service shares. Frozen, typed, built once in each entry point from the environment or a file."""

from pathlib import Path

from pydantic import SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class ServiceSettings(BaseSettings):
    """Base of each service's settings; a service adds its own fields and its own prefix."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore")

    deployments: Path
    rpc_urls: list[str]
    database_url: SecretStr
    log_level: str = "INFO"
    log_json: bool = False
