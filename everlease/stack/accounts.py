"""Development accounts made ready: mock dollars for everyone, stake for providers, their nodes authorised."""

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from everlease.chain.contracts import AssetCalls, Call, StakingCalls
from everlease.chain.deploy import send_and_wait
from everlease.chain.deployment import Deployment
from everlease.chain.keys import Key
from everlease.chain.rpc import RpcChain
from everlease.chain.typed_data import node_auth_digest
from everlease.chain.views import Views
from everlease.domain.terms import NodeAuth

_CONSENT_S = 3600


@dataclass(frozen=True, slots=True)
class ProviderKeys:
    """A development provider and its one node."""

    provider: Key
    node: Key


class Accounts:
    """Sends the transactions that a development market begins with; each step is skipped where it was done."""

    def __init__(self, chain: RpcChain, deployment: Deployment) -> None:
        self._chain, self._deployment = chain, deployment
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
        held = self._views.asset_balance(key.address)
        if held < dollars:
            self._send(key, self._asset.mint(key.address, dollars - held))

    def _settle(self, keys: ProviderKeys, stake: int) -> None:
        owner = keys.provider
        missing = stake - self._views.stake(owner.address).staked
        if missing > 0:
            self._fund(owner, missing)
            self._send(owner, self._asset.approve(self._deployment.staking, missing))
            self._send(owner, self._staking.stake(missing))
        if (self._views.provider_of(keys.node.address) or "").lower() != owner.address:
            auth = NodeAuth(owner.address, keys.node.address, int(time.time()) + _CONSENT_S, time.time_ns())
            signature = keys.node.sign(node_auth_digest(self._deployment.staking_domain, auth))
            self._send(owner, self._staking.authorise_node(auth, signature))

    def _send(self, key: Key, call: Call) -> None:
        send_and_wait(self._chain, key, call.to, call.data)
