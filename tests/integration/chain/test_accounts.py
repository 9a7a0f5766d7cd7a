"""Development accounts are made ready in their wallets' turns."""

import threading
from pathlib import Path

import pytest

from everlease.chain.wallet_queue import WalletQueue
from everlease.stack.accounts import Accounts, ProviderKeys
from tests.support.deployed import DOLLAR, Market, key

pytestmark = pytest.mark.anvil


def test_accounts_wait_for_whoever_has_the_wallets_turn(market: Market, tmp_path: Path) -> None:
    keys = ProviderKeys(key(5), market.node)
    accounts = Accounts(market.chain, market.deployment, tmp_path)
    work = threading.Thread(target=accounts.prepare, args=(market.tenant, 0, [keys], 5 * DOLLAR))
    folder = tmp_path / f"{market.deployment.chain_id}-{keys.provider.address}"
    with WalletQueue(market.chain, keys.provider, folder).turn():
        work.start()
        work.join(1)
        assert work.is_alive()
        assert market.views.stake(keys.provider.address).staked == 0
    work.join(30)
    assert not work.is_alive()
    assert market.views.stake(keys.provider.address).staked == 5 * DOLLAR
    assert (market.views.provider_of(market.node.address) or "").lower() == keys.provider.address
    before = market.chain.nonce(keys.provider.address)
    accounts.prepare(market.tenant, 0, [keys], 5 * DOLLAR)
    assert market.chain.nonce(keys.provider.address) == before, "again changes nothing"
