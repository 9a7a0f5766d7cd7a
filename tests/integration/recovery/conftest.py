"""A stage for recovery on real servers."""

import pytest

from everlease.db import Database
from tests.support.deployed import Market
from tests.support.recovery import Stage, make_stage


@pytest.fixture
def stage(market: Market, database: Database) -> Stage:
    """A desk, a sender and a market without nodes."""
    return make_stage(market, database)
