"""A server that is gone or can't serve is DatabaseUnavailable, whether SQLAlchemy or the driver itself was using it."""

from collections.abc import Callable

import pytest
from sqlalchemy import text

from everlease.db import Database, derived
from everlease.db.copy import copy_rows
from everlease.db.engine import DatabaseUnavailable, Tx, driver_connection
from everlease.db.models.mirror import BlockRow


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
