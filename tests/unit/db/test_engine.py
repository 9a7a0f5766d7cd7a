"""A server that is gone or can't serve is DatabaseUnavailable, whether SQLAlchemy or the driver itself was using it."""

from collections.abc import Callable

import pytest
from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError

from everlease.db import Database, derived, gateways
from everlease.db.copy import copy_rows
from everlease.db.engine import DatabaseUnavailable, Tx, driver_connection
from everlease.db.models.mirror import BlockRow
from tests.support.postgres import PostgresServer


def copied(tx: Tx) -> None:
    copy_rows(tx, BlockRow, ("number", "hash", "parent_hash", "timestamp", "events"), [(1, "0x1", "0x0", 1, 0)])


@pytest.mark.parametrize(
    "use", [copied, lambda tx: derived.load(tx, "lease", ["0x1"]), lambda tx: tx.execute(text("SELECT 1"))]
)
def test_a_server_that_cuts_the_connection(use: Callable[[Tx], object], database: Database) -> None:
    def cut() -> None:
        with database.transaction() as tx:
            mine = tx.scalar(text("SELECT pg_backend_pid()"))
            with database.transaction() as other:
                other.execute(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": mine})
            use(tx)

    with pytest.raises(DatabaseUnavailable):
        cut()
    with database.transaction() as tx:
        use(tx)


FULL = "DO $$ BEGIN RAISE disk_full USING MESSAGE = 'no room'; END $$"


@pytest.mark.parametrize("use", [lambda tx: tx.execute(text(FULL)), lambda tx: driver_connection(tx).execute(FULL)])
def test_a_full_disk(use: Callable[[Tx], object], database: Database) -> None:
    with pytest.raises(DatabaseUnavailable, match="no room"), database.transaction() as tx:
        use(tx)


@pytest.mark.parametrize("use", [gateways.sever_orphans, copied])
def test_a_database_that_is_not_migrated(use: Callable[[Tx], object], postgres_server: PostgresServer) -> None:
    name = postgres_server.create_database("template0")
    empty = Database(postgres_server.url(name))
    try:
        with pytest.raises(DatabaseUnavailable, match="the database is not migrated"), empty.transaction() as tx:
            use(tx)
        with pytest.raises(ProgrammingError, match="no_such_column"), empty.transaction() as tx:
            tx.execute(text("SELECT no_such_column"))
    finally:
        empty.close()
        postgres_server.drop_database(name)
