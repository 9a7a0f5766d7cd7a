"""A database that goes away while a lock is asked for is away, and nothing else."""

from typing import Any

import psycopg
import pytest

from everlease.db import Database, retention, timers
from everlease.db.engine import DatabaseUnavailable


class Dying:
    """A connection that breaks at its first query."""

    def __enter__(self) -> "Dying":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def execute(self, *_: Any) -> Any:
        raise psycopg.OperationalError("terminating connection due to administrator command\nSSL closed")


@pytest.mark.parametrize("hold", [retention.hold_turn, lambda database: timers.hold_watch(database, 7)])
def test_a_connection_that_breaks_at_the_lock_is_a_database_that_is_away(
    monkeypatch: pytest.MonkeyPatch, hold: Any
) -> None:
    monkeypatch.setattr(psycopg, "connect", lambda *_, **__: Dying())
    with pytest.raises(DatabaseUnavailable) as caught, hold(Database("postgresql://nobody@localhost/none")):
        raise AssertionError("nothing is held")
    assert str(caught.value) == "terminating connection due to administrator command"
