"""What tests of the indexer share."""

from collections.abc import Iterator

import pytest

from everlease.db import Database
from tests.support.postgres import PostgresServer


@pytest.fixture
def fresh(postgres_server: PostgresServer) -> Iterator[Database]:
    """A second database, to build the mirror anew in."""
    name = postgres_server.create_database()
    database = Database(postgres_server.url(name))
    yield database
    database.close()
    postgres_server.drop_database(name)
