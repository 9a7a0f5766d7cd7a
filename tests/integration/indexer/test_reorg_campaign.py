"""A slice of scripts/reorg_campaign.py on every run: the mirror equals the fold after crashes, reorgs and lies."""

import pytest

from everlease.db import Database, derived, totals
from indexer import source
from tests.support.anvil import running_anvil
from tests.support.anvil_campaign import AnvilScenario
from tests.support.campaign import Scenario
from tests.support.deployed import make_market
from tests.support.postgres import PostgresServer


@pytest.mark.parametrize("first", range(0, 100, 25))
def test_a_slice_of_the_campaign(first: int, database: Database) -> None:
    for seed in range(1_000_000 + first, 1_000_000 + first + 25):
        Scenario(seed, database).run()


def test_the_campaign_notices_logs_that_are_missing(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "_ASKED_AGAIN", 0)
    assert wrong(database) > 0


def test_the_campaign_notices_a_roll_back_that_leaves_rows(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    real = derived.put_back
    monkeypatch.setattr(derived, "put_back", lambda tx, rows: real(tx, dict(list(rows.items())[1:])))
    assert wrong(database) > 0


def test_the_campaign_notices_totals_that_a_roll_back_forgets(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    grown = totals.add
    monkeypatch.setattr(totals, "add", lambda tx, change: grown(tx, {k: v for k, v in change.items() if v > 0}))
    assert wrong(database) > 0


@pytest.mark.anvil
def test_a_slice_on_anvil(database: Database, postgres_server: PostgresServer) -> None:
    name = postgres_server.create_database()
    fresh = Database(postgres_server.url(name))
    with running_anvil(slots=256) as node:
        market = make_market(node)
        market.send(market.provider, market.asset.approve(market.deployment.staking, 2**128))
        for seed in range(8):
            AnvilScenario(seed, market, database, fresh).run()
        market.chain.close()
    fresh.close()
    postgres_server.drop_database(name)


def wrong(database: Database) -> int:
    """How many of some scenarios fail."""
    count = 0
    for seed in range(5000, 5060):
        try:
            Scenario(seed, database).run()
        except AssertionError:
            count += 1
            break
    return count
