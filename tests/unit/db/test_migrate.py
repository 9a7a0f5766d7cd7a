"""The migrations make what the models say."""

from concurrent.futures import ThreadPoolExecutor

import redis

from everlease.db import Database, migrate
from tests.support.postgres import PostgresServer


def test_models_and_migrations_agree(postgres_url: str) -> None:
    assert migrate.differences(postgres_url) == []


def test_two_processes_upgrade_at_once(postgres_server: PostgresServer) -> None:
    name = postgres_server.create_database("template1")
    url = postgres_server.url(name)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(migrate.upgrade, [url, url]))
    assert migrate.differences(url) == []
    postgres_server.drop_database(name)


def test_a_database_answers(database: Database) -> None:
    database.ping()


def test_valkey_answers(valkey_url: str) -> None:
    with redis.Redis.from_url(valkey_url) as client:
        assert client.ping()
