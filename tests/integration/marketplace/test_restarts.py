"""An agent that is only restarted: its node is waited for, a few times a day, and its job goes on under its fence."""

import time
from datetime import UTC, datetime, timedelta

import pytest

from everlease.db import evidence, nodes
from everlease.db.models.nodes import NodeRow
from everlease.domain.liveness import LivenessPolicy
from recovery import watch
from tests.support.gateway import award, begin, line
from tests.support.marketplace import FakeNode, Service
from tests.support.waiting import wait_for

pytestmark = pytest.mark.anvil
POLICY = LivenessPolicy()


def row_of(service: Service, node: FakeNode) -> NodeRow:
    with service.db.transaction() as tx:
        return tx.get_one(NodeRow, node.key.address, populate_existing=True)


def lost(service: Service, later: float) -> list[str]:
    """Whom a monitor that watched all the while finds lost so much later."""
    now = time.time() + later
    with service.db.transaction() as tx:
        return [found.node for found in watch.look(tx, now, now - 1000, POLICY)]


def goes(service: Service, node: FakeNode) -> None:
    """Its socket closes, and the gateway has noted that."""
    node.close()
    wait_for(lambda: row_of(service, node).disconnected_at is not None, 10)


def test_a_node_that_restarts_is_waited_for_and_goes_on_under_its_fence(
    service: Service, node: FakeNode, job_id: str
) -> None:
    node.connect()
    held = award(service, node, job_id)
    begin(service, held)
    node.beat(line(held))
    for _ in range(2):
        node.send("restarting")
    node.beat(line(held))
    assert len(row_of(service, node).restarts) == 1, "a repeat changes nothing"
    goes(service, node)
    assert lost(service, 2) == [], "it has longer than reconnect_grace"
    assert lost(service, POLICY.restart_grace - 5) == []
    assert lost(service, POLICY.restart_grace + 1) == [node.key.address], "but not for ever"
    welcome = node.connect(({"job_id": job_id, "fence": held.fence, "state": "frozen"},))
    assert (welcome.confirmed, welcome.dropped, welcome.resume_after_s) == ({job_id: held.fence}, [], 0)
    assert node.beat(line(held)).refused == []
    with service.db.transaction() as tx:
        told = [item["kind"] for item in evidence.history(tx, job_id)]
    assert told.count("node.restarting") == 1
    assert row_of(service, node).restarting_at is None
    goes(service, node)
    assert lost(service, 2) == [node.key.address], "its word was for one disconnection"


def test_beyond_the_bound_the_usual_grace_counts(service: Service, node: FakeNode, job_id: str) -> None:
    award(service, node, job_id)
    for turn in range(POLICY.max_restarts_a_day + 1):
        node.connect()
        node.send("restarting")
        node.beat()
        goes(service, node)
        excused = turn < POLICY.max_restarts_a_day
        assert lost(service, 2) == ([] if excused else [node.key.address])
    with service.db.transaction() as tx:
        found = tx.get_one(NodeRow, node.key.address)
        assert len(found.restarts) == POLICY.max_restarts_a_day + 1
        found.restarts = [at - 86_400 for at in found.restarts]
    node.connect()
    node.send("restarting")
    node.beat()
    goes(service, node)
    assert lost(service, 2) == [], "a day later it counts again"
    assert len(row_of(service, node).restarts) == 1, "and what was longer ago is forgotten"


def test_a_silent_node_that_said_so_is_not_lost_sooner_and_an_old_word_is_worth_nothing(
    service: Service, node: FakeNode, job_id: str
) -> None:
    """A gateway that was away itself does not see the socket close."""
    node.connect()
    award(service, node, job_id)
    node.send("restarting")
    node.beat()
    assert lost(service, 3) == [], "it is suspected and probed"
    assert lost(service, 5) == []
    with service.db.transaction() as tx:
        row = tx.get_one(NodeRow, node.key.address)
        row.restarting_at = datetime.now(UTC) - timedelta(seconds=POLICY.restart_grace)
    assert lost(service, 5) == [node.key.address]


def test_who_was_replaced_has_nothing_to_say(service: Service, node: FakeNode) -> None:
    node.connect()
    with service.db.transaction() as tx:
        assert not nodes.note_restart(tx, node.key.address, "another session")
    assert row_of(service, node).restarts == []
