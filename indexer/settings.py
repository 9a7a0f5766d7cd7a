"""Settings of the indexer, from the environment (``EVERLEASE_INDEXER_…``) or a file in the same format."""

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from everlease.settings import ServiceSettings


class IndexerSettings(ServiceSettings):
    """``ws_url``: an endpoint with newHeads, or empty for polling alone. ``finality_depth``: blocks after which one is
    final where the chain has no finalized tag. ``poll_s``: seconds between looks without (or between) new heads."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", env_prefix="EVERLEASE_INDEXER_")

    host: str = "127.0.0.1"
    port: int = Field(default=8090, ge=0, le=65535)
    ws_url: str = ""
    finality_depth: int = Field(default=64, ge=0)
    poll_s: float = Field(default=0.5, gt=0, le=60)
    stale_after_s: float = Field(default=60.0, gt=0)
