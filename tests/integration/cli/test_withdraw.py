"""What the command line says was withdrawn is what came, whatever it read before it sent."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from everlease.chain.keys import Key
from everlease.chain.views import Views
from everlease.cli.context import Wallet
from everlease.cli.output import money
from everlease.cli.payments import withdraw, withdraw_stake
from tests.integration.cli.conftest import Cli, served
from tests.support.deployed import DOLLAR, TERMS, Market

pytestmark = pytest.mark.anvil


@pytest.fixture
def wallet(market: Market, tmp_path: Path) -> Wallet:
    return Wallet(market.provider, market.chain, market.deployment, tmp_path / "wallets")


def gained(market: Market, key: Key, act: Callable[[], int]) -> tuple[int, int]:
    """What an act says that it moved, and what the account has more."""
    before = market.views.asset_balance(key.address)
    said = act()
    return said, market.views.asset_balance(key.address) - before


def test_credit_that_came_after_the_look_is_told(
    market: Market, wallet: Wallet, monkeypatch: pytest.MonkeyPatch
) -> None:
    served(market)
    monkeypatch.setattr(Views, "claimable", lambda self, account: 1)
    said, came = gained(market, market.provider, lambda: withdraw(wallet))
    assert said == came > 1


def test_nothing_is_sent_for_nothing(market: Market, wallet: Wallet) -> None:
    market.stake()
    market.send(market.provider, market.staking.request_unstake(DOLLAR))
    nonce = market.chain.nonce(market.provider.address)
    assert (withdraw(wallet), withdraw_stake(wallet)) == (0, 0)
    assert market.chain.nonce(market.provider.address) == nonce


def test_stake_that_a_lease_holds_stays_and_is_not_told(market: Market, wallet: Wallet) -> None:
    market.stake(3 * DOLLAR)
    market.send(market.provider, market.staking.request_unstake(3 * DOLLAR))
    opening, _ = market.open_call(market.fund(market.order()))
    market.send(market.watcher, opening)
    held = market.views.locked(market.provider.address)
    market.anvil.warp(TERMS.unbonding_period + 1)
    free = 3 * DOLLAR - held
    assert held > 0
    assert gained(market, market.provider, lambda: withdraw_stake(wallet)) == (free, free)
    assert withdraw_stake(wallet) == 0, "what is left unbonding waits for the lease"


def test_a_provider_gets_earnings_and_stake(market: Market, cli: Cli) -> None:
    served(market)
    market.send(market.provider, market.staking.request_unstake(3 * DOLLAR))
    earned = market.views.claimable(market.provider.address)
    first = cli(market.provider, "provider", "withdraw")
    assert (first.returncode, first.stderr) == (0, "")
    assert f"{money(earned)} of earnings and $0.00 of stake withdrawn" in first.stdout
    market.anvil.warp(TERMS.unbonding_period + 1)
    second = cli(market.provider, "provider", "withdraw", "--json")
    assert json.loads(second.stdout) == {"earnings": 0, "stake": 3 * DOLLAR}, second.stderr
