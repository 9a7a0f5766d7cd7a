"""A stage for recovery on real servers."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from everlease.db import Database
from tests.support.broker import Broker
from tests.support.deployed import Market
from tests.support.recovery import Stage, make_stage


@pytest.fixture
def stage(market: Market, database: Database) -> Stage:
    """A desk, a sender and a market without nodes."""
    return make_stage(market, database)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    """A broker of the test's own, listening."""
    server = Broker(tmp_path)
    server.start()
    yield server
    server.kill()


@pytest.fixture
def job(stage: Stage) -> str:
    """A job that runs on a node, after two of its heartbeats."""
    stage.node(5)
    found = stage.launch()
    stage.run_on(found, 5)
    stage.beat(found, 2, 0.1)
    return found
