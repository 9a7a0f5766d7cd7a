"""Settings of the marketplace, from the environment (``EVERLEASE_MARKETPLACE_…``)."""

from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import SettingsConfigDict

from everlease.domain.silence import LEAST_SILENCE_S
from everlease.settings import PriceSettings


class MarketplaceSettings(PriceSettings):
    """``store`` is a folder (the block service is then mounted at /store) or the URL of a remote block service.

    ``master_key_file`` holds the 32-byte key that wraps job keys; it is created (mode 0600) where it is missing.
    Times are seconds, sizes bytes, fees base units. ``min_epoch_fee``: what an order pays at least for each lease that
    the watcher opens for it; recovery is given the same.

    ``greetings``: sockets of nodes that have not proved who they are: in all, kept for networks of known nodes, and at
    most of one network (an IPv4 address, an IPv6 /64). ``knocks``: new sockets of a network that nobody knows; known
    ones may knock eight times as often. ``late_grace`` and ``late_log_bytes``: how long and how much of a job's output
    is still taken from a host whose award has ended.
    """

    model_config = SettingsConfigDict(frozen=True, extra="ignore", env_prefix="EVERLEASE_MARKETPLACE_")

    host: str = "127.0.0.1"
    port: int = Field(default=8080, ge=0, le=65535)
    public_url: str = "http://127.0.0.1:8080"
    explorer_url: str = ""
    siwe_domain: str = ""
    siwe_statement: str = "Sign in to Everlease."
    nonce_lifetime_s: int = Field(default=300, ge=10, le=3600)
    token_lifetime_s: int = Field(default=30 * 86_400, ge=60)
    auth_attempts_per_minute: int = Field(default=60, ge=1)

    watcher: str = Field(pattern=r"^0x[0-9a-fA-F]{40}$")
    suggested_max_silence: int = Field(default=LEAST_SILENCE_S, ge=LEAST_SILENCE_S)
    suggested_max_epochs: int = 100
    min_epoch_fee: int = Field(default=0, ge=0)
    suggested_epoch_fee: int = Field(default=0, ge=0)
    suggested_min_collateral: int = Field(default=1_000_000, ge=0)

    store: str
    store_public_url: str = ""
    store_token_secret: SecretStr
    store_token_lifetime_s: int = Field(default=6 * 3600, ge=60)
    upload_quota_bytes: int = Field(default=64 << 30, ge=1 << 20)
    max_pending_jobs: int = Field(default=100, ge=1)
    collect_every_s: float = Field(default=900.0, gt=0)
    scrub_every_s: float = Field(default=86_400.0, gt=0)
    master_key_file: Path

    fence_after: float = Field(default=4.0, gt=0)
    heartbeat_every: float = Field(default=1.0, gt=0)
    greetings: int = Field(default=256, ge=2)
    greetings_reserved: int = Field(default=128, ge=1)
    greetings_of_stranger: int = Field(default=32, ge=1)
    greetings_of_known: int = Field(default=64, ge=1)
    knocks_per_second: float = Field(default=4.0, gt=0)
    knocks_burst: float = Field(default=32.0, ge=1)
    shun_base_s: float = Field(default=5.0, ge=0)
    shun_max_s: float = Field(default=600.0, ge=0)
    late_grace: float = Field(default=60.0, ge=0)
    late_log_bytes: int = Field(default=1 << 20, ge=0)
    log_bytes_per_job: int = Field(default=64 << 20, ge=1 << 16)
    max_body_bytes: int = Field(default=1 << 20, ge=1 << 14)

    @field_validator("store_token_secret")
    @classmethod
    def _long_enough(cls, secret: SecretStr) -> SecretStr:
        if len(secret.get_secret_value().encode()) < 32:
            raise ValueError("store_token_secret has at least 32 bytes")
        return secret

    @model_validator(mode="after")
    def _suggestion_suffices(self) -> Self:
        if self.suggested_epoch_fee < self.min_epoch_fee:
            raise ValueError("suggested_epoch_fee is at least min_epoch_fee, or orders that follow it are refused")
        return self

    @model_validator(mode="after")
    def _some_for_strangers(self) -> Self:
        if self.greetings_reserved >= self.greetings:
            raise ValueError("greetings_reserved is less than greetings: nodes that nobody knows yet come in, too")
        return self

    @field_validator("public_url", "explorer_url", "store_public_url")
    @classmethod
    def _no_slash(cls, url: str) -> str:
        return url.rstrip("/")

    @property
    def origin(self) -> str:
        """Scheme and authority of the public URL: what browsers send as Origin."""
        parts = urlsplit(self.public_url)
        return f"{parts.scheme}://{parts.netloc}"

    @property
    def sign_in_domain(self) -> str:
        """The authority that sign-in messages must name (EIP-4361 ``domain``)."""
        return self.siwe_domain or urlsplit(self.public_url).netloc

    @property
    def secure_cookies(self) -> bool:
        """Whether cookies are limited to https."""
        return self.public_url.startswith("https://")

    @property
    def store_is_remote(self) -> bool:
        """Whether ``store`` is a URL."""
        return self.store.startswith(("http://", "https://"))

    @property
    def store_url(self) -> str:
        """Where clients and nodes reach the block service."""
        return self.store_public_url or (self.store.rstrip("/") if self.store_is_remote else f"{self.public_url}/store")
