"""A broker dies while a task is unacknowledged: the worker meets errors that it survives."""

from contextlib import suppress

import pytest
from celery import Celery
from kombu import Connection, Consumer, Queue
from kombu.common import ignore_errors
from kombu.transport.redis import Channel

from recovery.broker import make_app
from recovery.settings import RecoverySettings
from tests.support.broker import Broker


@pytest.fixture
def app(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> Celery:
    return make_app(RecoverySettings.model_construct(**{"broker_url": broker.url, "task_time_limit": 60}))


def held(app: Celery, connection: Connection) -> Channel:
    """A channel that was handed a task, hasn't acknowledged it and waits for more; another one waits beside it."""
    app.send_task("recovery.pump")
    tasks: list[object] = []
    channel = connection.default_channel
    Consumer(channel, [Queue("recovery")], on_message=tasks.append, no_ack=False).consume()
    while not tasks:
        connection.drain_events(timeout=5)
    other = connection.channel()
    Consumer(other, [Queue("other")], on_message=tasks.append).consume()
    with suppress(TimeoutError):
        connection.drain_events(timeout=0.5)
    assert channel._in_poll
    assert other._in_poll
    return channel


def test_a_task_is_in_hand_when_the_broker_dies(app: Celery, broker: Broker) -> None:
    """What Celery does with the connection then, in its order, and with the task once it has failed."""
    connection = app.connection_for_read()
    channel = held(app, connection)
    tag = next(iter(channel.qos._delivered))
    broker.kill()
    connection.collect()
    survived = connection.connection_errors + connection.channel_errors
    ignore_errors(connection, connection.close)
    with pytest.raises(survived):
        channel.basic_reject(tag, requeue=False)
    with pytest.raises(survived):
        channel.basic_ack(tag)
    broker.start()
