"""A gateway's presence for tests of the monitor that run without a marketplace."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from everlease.db import Database, gateways


@contextmanager
def gateway_up(database: Database, gateway: int = 1) -> Iterator[None]:
    """Share this gateway's advisory lock until the block ends; a connection that is cut is made again."""
    up, over = threading.Event(), threading.Event()

    def hold() -> None:
        while not over.is_set():
            try:
                with psycopg.connect(database.libpq_url, autocommit=True) as connection:
                    connection.execute("SELECT pg_advisory_lock_shared(%s, %s)", [gateways.LOCK, gateway])
                    up.set()
                    while not over.wait(0.1):
                        connection.execute("SELECT 1")
            except psycopg.OperationalError:
                over.wait(0.1)

    thread = threading.Thread(target=hold)
    thread.start()
    try:
        assert up.wait(10)
        yield
    finally:
        over.set()
        thread.join()
