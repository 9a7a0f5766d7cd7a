"""LISTEN and NOTIFY: a wake-up, never a message. Whoever waits reads the tables; what is missed while the connection
is down is made up for by the empty notification that follows every (re)connect."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo
from sqlalchemy import func, select

from everlease.db.engine import Tx

_FIRST_WAIT_S = 0.2
_LONGEST_WAIT_S = 5.0
_KEEPALIVES = {"idle": 3, "interval": 1, "count": 2}
"""Over TCP: an end that vanished is missed by the other after some 5 s (seconds, and how many)."""


@dataclass(frozen=True, slots=True)
class Notification:
    """``channel`` is empty for "look at everything": sent after each connect, and as the tick where one was asked."""

    channel: str
    payload: str


EVERYTHING = Notification("", "")


def notify(tx: Tx, channel: str, payload: str) -> None:
    """Wake the listeners of ``channel`` when this transaction commits; ``payload`` is short (under 8,000 bytes)."""
    tx.execute(select(func.pg_notify(channel, payload)))


def listen(libpq_url: str, channels: Sequence[str], *, tick_s: float = 5.0) -> Iterator[Notification]:
    """Notifications for ever; EVERYTHING after each connect and after ``tick_s`` of silence.

    Close the generator to end. A lost server is waited for, 0.2 s doubling to 5 s; meanwhile the iterator ticks.
    """
    wait = _FIRST_WAIT_S
    while True:
        try:
            with psycopg.connect(libpq_url, autocommit=True, connect_timeout=5) as connection:
                for channel in channels:
                    connection.execute(_listen(channel))
                wait = _FIRST_WAIT_S
                yield EVERYTHING
                while True:
                    silent = True
                    for found in connection.notifies(timeout=tick_s):
                        silent = False
                        yield Notification(found.channel, found.payload)
                    if silent:
                        yield EVERYTHING
        except psycopg.OperationalError:
            time.sleep(wait)
            wait = min(wait * 2, _LONGEST_WAIT_S)
            yield EVERYTHING


async def listen_async(
    libpq_url: str, channels: Sequence[str], *, presence: tuple[int, int], tick_s: float = 5.0
) -> AsyncIterator[Notification]:
    """``listen`` for an event loop. ``presence``: an advisory lock that is shared for as long as one listens; it goes
    with the connection, so others can tell who is there (see gateways.present).
    """
    conninfo = make_conninfo(libpq_url, **{f"keepalives_{name}": value for name, value in _KEEPALIVES.items()})
    wait = _FIRST_WAIT_S
    while True:
        try:
            connection = await psycopg.AsyncConnection.connect(conninfo, autocommit=True, connect_timeout=5)
            async with connection:
                for channel in channels:
                    await connection.execute(_listen(channel))
                for name, value in _KEEPALIVES.items():
                    await connection.execute(_set(f"tcp_keepalives_{name}", value))
                await connection.execute("SELECT pg_advisory_lock_shared(%s, %s)", presence)
                wait = _FIRST_WAIT_S
                yield EVERYTHING
                while True:
                    silent = True
                    async for found in connection.notifies(timeout=tick_s):
                        silent = False
                        yield Notification(found.channel, found.payload)
                    if silent:
                        yield EVERYTHING
        except psycopg.OperationalError:
            await asyncio.sleep(wait)
            wait = min(wait * 2, _LONGEST_WAIT_S)
            yield EVERYTHING


def _set(name: str, value: int) -> sql.Composed:
    return sql.SQL("SET {} = {}").format(sql.Identifier(name), sql.Literal(value))


def _listen(channel: str) -> sql.Composed:
    return sql.SQL("LISTEN {}").format(sql.Identifier(channel))
