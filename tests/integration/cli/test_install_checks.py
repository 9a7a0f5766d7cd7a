"""What `provider install` finds out before it writes anything: that market, contracts and chain belong together."""

from dataclasses import replace

import pytest

from everlease.chain.deployment import Deployment
from everlease.chain.errors import WrongChain
from everlease.cli.errors import CliError
from everlease.cli.provider_host import check_market
from everlease.wire.http import MarketOut
from tests.support.deployed import Market


def terms(deployment: Deployment) -> MarketOut:
    return MarketOut.model_construct(chain_id=deployment.chain_id, escrow=deployment.escrow)


def checked(market: Market, deployment: Deployment) -> str:
    return check_market(
        terms(market.deployment), deployment, market.anvil.url, market.node.address, market.provider.address
    )


def test_a_node_that_the_market_would_not_admit_is_told_of(market: Market) -> None:
    assert "no provider answers for it" in checked(market, market.deployment)
    market.stake()
    assert checked(market, market.deployment) == ""
    stranger = market.tenant.address
    told = check_market(terms(market.deployment), market.deployment, market.anvil.url, market.node.address, stranger)
    assert f"provider {market.provider.address} answers for it" in told


def test_contracts_of_another_market_are_refused(market: Market) -> None:
    with pytest.raises(CliError, match="of another market"):
        checked(market, replace(market.deployment, escrow="0x" + "11" * 20))


def test_an_endpoint_of_another_chain_is_refused(market: Market) -> None:
    other = replace(market.deployment, chain_id=1)
    with pytest.raises(WrongChain):
        check_market(terms(other), other, market.anvil.url, market.node.address, market.provider.address)
