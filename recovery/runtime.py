"""What one process of the recovery service holds: built once from the settings, connected on first use."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from everlease.chain.contracts import EscrowCalls
from everlease.chain.deployment import Deployment
from everlease.chain.rpc import RpcChain
from everlease.chain.sender import Sender
from everlease.db import Database
from everlease.db.journal import PostgresJournal
from recovery.apply import Desk
from recovery.receipts import Watcher
from recovery.settings import RecoverySettings


@dataclass(frozen=True)
class Runtime:
    """Desk for decisions, sender for the chain, and the settings both came from."""

    settings: RecoverySettings
    deployment: Deployment
    desk: Desk
    sender: Sender
    chain: RpcChain

    @property
    def database(self) -> Database:
        """The service's database."""
        return self.desk.database

    def close(self) -> None:
        """Close every connection."""
        self.chain.close()
        self.database.close()


def build(settings: RecoverySettings, clock: Callable[[], float] = time.time) -> Runtime:
    """Wire a process up. Raises BadDeployment, KeyRefused or NoWatcherKey; reaches no server."""
    deployment = Deployment.load(settings.deployments)
    key = settings.key(deployment.chain_id)
    database = Database(settings.database_url.get_secret_value(), pool_size=4)
    chain = RpcChain.connect(settings.rpc_urls, chain_id=deployment.chain_id)
    journal = PostgresJournal(database, clock)
    return Runtime(
        settings=settings,
        deployment=deployment,
        desk=Desk(
            database=database,
            watcher=Watcher(key, deployment.escrow_domain),
            calls=EscrowCalls(deployment),
            policy=settings.policy(deployment.terms),
            clock=clock,
        ),
        sender=Sender(chain, journal, {key.address: key}, policy=settings.send_policy(), clock=clock),
        chain=chain,
    )
