"""Settings of the recovery service: prefix ``EVERLEASE_RECOVERY_``. Seconds unless a name says otherwise."""

from datetime import timedelta
from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from everlease.chain import deployment
from everlease.chain.keys import Key, load_keystore, raw_key
from everlease.chain.sender import SendPolicy
from everlease.db.retention import Terms
from everlease.domain.liveness import LivenessPolicy
from everlease.domain.retention import Bounds
from everlease.domain.silence import RECEIPT_EVERY_S
from everlease.settings import PriceSettings
from recovery.planner import Policy


class NoWatcherKey(Exception):
    """The watcher has no key to sign with."""

    retryable = False


class RecoverySettings(PriceSettings):
    """One set for monitor, relay, workers and beat. The broker may be ``redis://…`` or ``redis+socket:///path``.

    ``min_epoch_fee``: the marketplace's (base units); no lease is opened for an order that pays less.
    ``keep_…``: how many checkpoints of a job are kept, and the bytes of all but its head. ``retention``: for how long
    after the job; ``unpaid_retention``: where no provider was paid for it. ``health_port``: where the monitor answers
    ``/readyz`` and ``/metrics``; 0 for nowhere.
    """

    model_config = SettingsConfigDict(frozen=True, extra="ignore", env_prefix="EVERLEASE_RECOVERY_")

    broker_url: str
    watcher_keystore: Path | None = None
    watcher_password: SecretStr = SecretStr("")
    watcher_key: SecretStr | None = None

    suspect_after: float = 2.5
    probe_timeout: float = 1.0
    reconnect_grace: float = 1.0
    restart_grace: float = Field(default=30.0, ge=0)
    max_restarts_a_day: int = Field(default=5, ge=0, le=50)
    fence_after: float = 4.0

    min_epoch_fee: int = Field(default=0, ge=0)
    auction_window: float = 1.0
    recovery_window: float = 0.3
    prepare_timeout: float = Field(default=900, gt=0, le=3000)
    start_timeout: float = 900
    checkpoint_timeout: float = Field(default=900, gt=0, le=3000)
    capacity_wait: float = 15
    reorg_grace: float = 30
    final_timeout: float = Field(default=900, gt=0)
    idle_after: float = Field(default=300, gt=0)
    storing_after: float = Field(default=10_800, gt=0)
    exhaust_margin: int = 30

    receipt_every: float = Field(default=RECEIPT_EVERY_S, gt=0, le=RECEIPT_EVERY_S)
    keep_checkpoints: int = Field(default=3, ge=2)
    keep_restore_points: int = Field(default=8, ge=1)
    keep_superseded: int = Field(default=8, ge=0)
    keep_bytes: int = Field(default=512 << 30, ge=0)
    retention: float = Field(default=7 * 86_400, ge=0)
    unpaid_retention: float = Field(default=86_400, ge=0)
    task_time_limit: int = Field(default=60, ge=2)

    health_host: str = "127.0.0.1"
    health_port: int = Field(default=0, ge=0, le=65535)

    max_fee_gwei: int = 500
    bump_after: float = 15.0
    finality_depth: int = 12

    def key(self, chain_id: int) -> Key:
        """The watcher's key: a keystore file, or a raw key on a development chain."""
        if self.watcher_keystore is not None:
            return load_keystore(self.watcher_keystore, self.watcher_password.get_secret_value())
        if self.watcher_key is not None:
            return raw_key(self.watcher_key.get_secret_value(), chain_id)
        raise NoWatcherKey("set EVERLEASE_RECOVERY_WATCHER_KEYSTORE to the watcher's key file")

    def liveness(self) -> LivenessPolicy:
        """When a node is SUSPECT and LOST; the same ``fence_after`` as the gateway tells its nodes."""
        return LivenessPolicy(
            suspect_after=self.suspect_after,
            probe_timeout=self.probe_timeout,
            reconnect_grace=self.reconnect_grace,
            restart_grace=self.restart_grace,
            max_restarts_a_day=self.max_restarts_a_day,
            fence_after=self.fence_after,
        )

    def policy(self, terms: deployment.Terms) -> Policy:
        """The planner's policy under a deployment's terms."""
        return Policy(
            min_runtime_s=terms.min_runtime,
            bond=terms.bond,
            min_epoch_fee=self.min_epoch_fee,
            liveness=self.liveness(),
            auction_window_s=self.auction_window,
            recovery_window_s=self.recovery_window,
            migration_window_s=self.auction_window,
            reserve_rise_s=self.reserve_rise,
            recovery_rise_s=self.reserve_rise_in_recovery,
            posted=self.posted,
            prepare_timeout_s=self.prepare_timeout,
            start_timeout_s=self.start_timeout,
            checkpoint_timeout_s=self.checkpoint_timeout,
            capacity_wait_s=self.capacity_wait,
            reorg_grace_s=self.reorg_grace,
            final_timeout_s=self.final_timeout,
            idle_after_s=self.idle_after,
            storing_after_s=self.storing_after,
            exhaust_margin_s=self.exhaust_margin,
        )

    def kept(self) -> Bounds:
        """How many checkpoints of a job are kept."""
        return Bounds(self.keep_checkpoints, self.keep_restore_points, self.keep_superseded, self.keep_bytes)

    def kept_for(self) -> Terms:
        """How long they are kept after the job."""
        return Terms(timedelta(seconds=self.retention), timedelta(seconds=self.unpaid_retention))

    def send_policy(self) -> SendPolicy:
        """The transaction sender's fee caps and patience."""
        return SendPolicy(
            max_fee_cap=self.max_fee_gwei * 10**9,
            bump_after_s=self.bump_after,
            finality_depth=self.finality_depth,
        )
