"""The sender behind several real endpoints, all but one of which are wrong in a way of their own."""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from everlease.chain.errors import RpcUnavailable, WrongChain
from everlease.chain.rpc import RpcChain
from everlease.chain.sender import Sender, SendPolicy
from everlease.db import Database, journal
from everlease.db.journal import PostgresJournal
from tests.support.anvil import running_anvil
from tests.support.deployed import Market
from tests.support.rpc_endpoints import behind, dead, endpoint, hanging, http

pytestmark = pytest.mark.anvil


@pytest.fixture
def bad_urls(market: Market) -> Iterator[dict[str, str]]:
    """One endpoint of each kind."""
    with ExitStack() as stack:
        yield {
            "dead": stack.enter_context(dead()),
            "hanging": stack.enter_context(hanging()),
            "throttled": stack.enter_context(endpoint(http(429, retry_after="1"))).url,
            "broken": stack.enter_context(endpoint(http(502, b"<html>bad gateway</html>"))).url,
            "rubbish": stack.enter_context(endpoint(http(200, b"{{ not json"))).url,
            "foreign": stack.enter_context(running_anvil("--chain-id", "5")).url,
            "lagging": stack.enter_context(endpoint(behind(market.anvil.url, 8))).url,
        }


def settle(market: Market, chain: RpcChain, database: Database) -> None:
    """Mint once through ``chain`` and pump until it is final, while blocks go by."""
    mint = market.asset.mint(market.watcher.address, 1)
    with database.transaction() as tx:
        journal.enqueue(
            tx, action_key="mint", sender=market.watcher.address, to=mint.to, data=mint.data, call="mint"
        )  # fmt: skip
    keys = {market.watcher.address: market.watcher}
    sender = Sender(chain, PostgresJournal(database), keys, policy=SendPolicy(displaced_after_s=0, bump_after_s=0))
    for _ in range(12):
        sender.pump(market.watcher.address)
        market.anvil.mine(4)
        with database.transaction() as tx:
            row = journal.find(tx, "mint")
            assert row is not None
            if row.state == "final":
                break
    assert row.state == "final"
    assert market.views.asset_balance(market.watcher.address) == 1
    assert market.chain.nonce(market.watcher.address) == 1


@pytest.mark.parametrize("kind", ["dead", "hanging", "throttled", "broken", "rubbish", "foreign", "lagging"])
def test_one_bad_endpoint_before_a_good_one(
    market: Market, database: Database, bad_urls: dict[str, str], kind: str
) -> None:
    chain = RpcChain.connect([bad_urls[kind], market.anvil.url], chain_id=31337, timeout=1)
    settle(market, chain, database)
    chain.close()


def test_all_bad_ones_before_a_good_one(market: Market, database: Database, bad_urls: dict[str, str]) -> None:
    chain = RpcChain.connect([*bad_urls.values(), market.anvil.url], chain_id=31337, timeout=1)
    settle(market, chain, database)
    chain.close()


def test_without_a_good_one_the_error_names_what_each_said(bad_urls: dict[str, str]) -> None:
    urls = [bad_urls[kind] for kind in ("dead", "broken", "rubbish", "foreign")]
    chain = RpcChain.connect(urls, chain_id=31337, timeout=1)
    with pytest.raises(RpcUnavailable, match=r"ConnectError.*HTTP 502.*without JSON.*chain 5 instead of 31337"):
        chain.fees()
    chain.close()


def test_endpoints_of_another_chain_alone_are_refused(bad_urls: dict[str, str]) -> None:
    chain = RpcChain.connect([bad_urls["foreign"]], chain_id=31337)
    with pytest.raises(WrongChain):
        chain.fees()
    chain.close()
