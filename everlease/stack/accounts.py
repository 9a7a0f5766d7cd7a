"""Development accounts made ready: mock dollars for everyone, stake for providers, their nodes authorised.

Each wallet's transactions are sent in its turn: an `everlease up` that was cut off sends nothing twice when it is
begun again, and whoever uses the stack's wallets meanwhile waits.
"""

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from everlease.chain.contracts import AssetCalls, Call, StakingCalls
from everlease.chain.deployment import Deployment
from everlease.chain.keys import Key
from everlease.chain.rpc import RpcChain
from everlease.chain.typed_data import node_auth_digest
from everlease.chain.views import Views
from everlease.chain.wallet_queue import WalletQueue
from everlease.domain.terms import NodeAuth

_CONSENT_S = 3600


@dataclass(frozen=True, slots=True)
class ProviderKeys:
    """A development provider and its one node."""

    provider: Key
    node: Key


class Accounts:
    """Sends the transactions that a development market begins with; each step is skipped where it was done."""

    def __init__(self, chain: RpcChain, deployment: Deployment, wallets: Path) -> None:
        self._chain, self._deployment, self._wallets = chain, deployment, wallets
        self._views = Views(chain, deployment)
        self._asset, self._staking = AssetCalls(deployment), StakingCalls(deployment)

    def prepare(self, tenant: Key, tenant_dollars: int, providers: list[ProviderKeys], stake: int) -> None:
        """Bring every account to at least these amounts (base units)."""
        with ThreadPoolExecutor(max(len(providers) + 1, 1)) as pool:
            jobs = [pool.submit(self._fund, tenant, tenant_dollars)]
            jobs += [pool.submit(self._settle, keys, stake) for keys in providers]
            for job in jobs:
                job.result()

    def _fund(self, key: Key, dollars: int) -> None:
        queue = self._queue(key)
        with queue.turn():
            self._mint(queue, key, dollars)

    def _settle(self, keys: ProviderKeys, stake: int) -> None:
        owner = keys.provider
        queue = self._queue(owner)
        with queue.turn():
            queue.settle()
            missing = stake - self._views.stake(owner.address).staked
            if missing > 0:
                self._mint(queue, owner, missing)
                _send(queue, "allowance for the stake", self._asset.approve(self._deployment.staking, missing))
                _send(queue, "stake", self._staking.stake(missing))
            if (self._views.provider_of(keys.node.address) or "").lower() != owner.address:
                auth = NodeAuth(owner.address, keys.node.address, int(time.time()) + _CONSENT_S, time.time_ns())
                signature = keys.node.sign(node_auth_digest(self._deployment.staking_domain, auth))
                _send(queue, f"node {keys.node.address}", self._staking.authorise_node(auth, signature))

    def _mint(self, queue: WalletQueue, key: Key, dollars: int) -> None:
        queue.settle()
        held = self._views.asset_balance(key.address)
        if held < dollars:
            _send(queue, "mock dollars", self._asset.mint(key.address, dollars - held))

    def _queue(self, key: Key) -> WalletQueue:
        return WalletQueue(self._chain, key, self._wallets / f"{self._deployment.chain_id}-{key.address}")


def _send(queue: WalletQueue, intent: str, call: Call) -> None:
    queue.send(intent, lambda: call)
