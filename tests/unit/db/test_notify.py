"""Wake-ups arrive after the commit, and a lost connection is made up for."""

import asyncio
from itertools import islice

from sqlalchemy import text

from everlease.db import Database, gateways
from everlease.db.notify import EVERYTHING, Notification, listen, listen_async, notify


def test_a_listener_is_woken_after_the_commit(database: Database) -> None:
    heard = listen(database.libpq_url, ["one", "two"], tick_s=0.2)
    assert next(heard) == EVERYTHING
    with database.transaction() as tx:
        notify(tx, "two", "x")
        notify(tx, "three", "y")
    assert next(heard) == Notification("two", "x")
    assert next(heard) == EVERYTHING
    heard.close()  # type: ignore[attr-defined]


def test_a_rolled_back_wake_up_is_never_heard(database: Database) -> None:
    heard = listen(database.libpq_url, ["one"], tick_s=0.2)
    next(heard)
    try:
        with database.transaction() as tx:
            notify(tx, "one", "x")
            raise KeyError
    except KeyError:
        pass
    assert next(heard) == EVERYTHING
    heard.close()  # type: ignore[attr-defined]


def test_a_lost_connection_is_made_up_for(database: Database) -> None:
    heard = listen(database.libpq_url, ["one"], tick_s=5)
    next(heard)
    with database.transaction() as tx:
        tx.execute(
            text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE query LIKE 'LISTEN%' AND datname = current_database()"
            )
        )
    assert list(islice(heard, 2)) == [EVERYTHING, EVERYTHING]
    with database.transaction() as tx:
        notify(tx, "one", "again")
    assert next(heard) == Notification("one", "again")
    heard.close()  # type: ignore[attr-defined]


def test_the_same_for_an_event_loop(database: Database) -> None:
    async def hear() -> list[Notification]:
        heard = listen_async(database.libpq_url, ["one"], presence=(gateways.LOCK, 5), tick_s=0.2)
        found = [await anext(heard)]
        with database.transaction() as tx:
            assert gateways.present(tx) == {5}
            notify(tx, "one", "x")
        found += [await anext(heard), await anext(heard)]
        await heard.aclose()  # type: ignore[attr-defined]
        return found

    assert asyncio.run(hear()) == [EVERYTHING, Notification("one", "x"), EVERYTHING]
