"""Kombu's Redis transport, mended for a broker that dies while a task is unacknowledged.

Celery closes such a connection twice. The second time the channel has lost its connection already, and what it does
to give the message back ends the whole worker with an AttributeError (seen with kombu 5.7.0) instead of a
connection error that Celery expects and survives.
"""

from typing import Any

from kombu.transport import TRANSPORT_ALIASES, redis
from redis.exceptions import ConnectionError as BrokerGone


class Channel(redis.Channel):
    """A channel that says so when its connection has been closed."""

    def _connparams(self, asynchronous: bool = False) -> dict[str, Any]:
        if self.connection is None or self.connection.client is None:
            raise BrokerGone("the connection of this channel is closed")
        parameters: dict[str, Any] = super()._connparams(asynchronous=asynchronous)  # type: ignore[no-untyped-call]
        return parameters


class Transport(redis.Transport):
    """Redis with the mended channel."""

    Channel = Channel


def install() -> None:
    """Let every ``redis`` and ``rediss`` URL of this process, with whatever ``+socket``, use it."""
    for alias in ("redis", "rediss"):
        TRANSPORT_ALIASES[alias] = f"{Transport.__module__}:{Transport.__qualname__}"
