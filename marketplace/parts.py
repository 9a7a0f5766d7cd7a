"""What one marketplace process is made of; built once by the app, reached by routers through ``app.state.parts``."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from everlease.chain.deployment import Deployment
from everlease.chain.rpc import RpcChain
from everlease.chain.views import Views
from everlease.db import Database, gateways
from everlease.supervision import TaskSupervisor
from marketplace.followers import Followers
from marketplace.metrics import Metrics
from marketplace.services.keys import KeyService, load_master_key
from marketplace.services.orders import OrderDesk
from marketplace.services.signin import RateLimit, SignIn
from marketplace.services.store import StoreGate
from marketplace.settings import MarketplaceSettings

_log = structlog.get_logger("marketplace")


@dataclass(frozen=True)
class Parts:
    """``beats_db`` is a pool for heartbeats alone, so that a flood of requests can't make nodes look silent.
    ``lookups`` gives up soon: nodes wait before the door for what it says. ``gateway_id``: this process among replicas.
    """

    settings: MarketplaceSettings
    deployment: Deployment
    chain: RpcChain
    views: Views
    lookups: RpcChain
    db: Database
    beats_db: Database
    store: StoreGate
    keys: KeyService
    sign_in: SignIn
    orders: OrderDesk
    auth_limit: RateLimit
    auth_site_limit: RateLimit
    followers: Followers
    metrics: Metrics
    tasks: TaskSupervisor
    gateway_id: int
    clock: Callable[[], float]

    def check_master_key(self) -> None:
        """Raise OtherMasterKey unless this process has the database's master key, or DatabaseUnavailable."""
        with self.db.transaction() as tx:
            self.keys.check(tx)

    def close(self) -> None:
        """Release connections, files and the store's lock."""
        self.store.close()
        self.lookups.close()
        self.chain.close()
        self.beats_db.close()
        self.db.close()


def build_parts(settings: MarketplaceSettings, clock: Callable[[], float] = time.time) -> Parts:
    """Everything, connected to nothing yet (a local store is opened and locked)."""
    deployment = Deployment.load(settings.deployments)
    chain = RpcChain.connect(settings.rpc_urls, chain_id=deployment.chain_id, timeout=5.0)
    lookups = RpcChain.connect(settings.rpc_urls, chain_id=deployment.chain_id, timeout=2.0, rounds=1)
    url = settings.database_url.get_secret_value()
    tasks = TaskSupervisor(_report)
    db = Database(url)
    return Parts(
        settings=settings,
        deployment=deployment,
        chain=chain,
        views=Views(chain, deployment),
        lookups=lookups,
        db=db,
        beats_db=Database(url, pool_size=4),
        store=StoreGate(settings, clock),
        keys=KeyService(load_master_key(settings.master_key_file)),
        sign_in=SignIn(settings, deployment.chain_id, db, chain),
        orders=OrderDesk(deployment, chain, settings.watcher, settings.min_epoch_fee),
        auth_limit=RateLimit(settings.auth_attempts_per_minute),
        auth_site_limit=RateLimit(settings.auth_attempts_per_minute * 4),
        followers=Followers(),
        metrics=Metrics(tasks.roster),
        tasks=tasks,
        gateway_id=gateways.new_id(),
        clock=clock,
    )


def _report(task: str, what: str, error: BaseException | None) -> None:
    _log.error("background task is started again", task=task, what=what, exc_info=error)
