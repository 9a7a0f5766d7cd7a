"""A node's goodbye: kept once, per job it holds, and only under the current fence."""

import time

import pytest

from everlease.db import awards, nodes
from tests.support.deployed import key
from tests.support.gateway import award, topics
from tests.support.marketplace import FakeNode, Service, make_award

pytestmark = pytest.mark.anvil


def test_a_goodbye_is_kept_once_and_the_node_is_watched_no_more(service: Service, node: FakeNode, job_id: str) -> None:
    node.connect()
    held = award(service, node, job_id)
    with service.db.transaction() as tx:
        assert node.key.address in {row.address for row in nodes.watched(tx)}
    word = {"job_id": job_id, "fence": held.fence, "head": None, "still": True, "why": "no time for a checkpoint"}
    for _ in range(2):
        node.send("goodbye", reason="a new disk", jobs=[word])
    node.beat()
    with service.db.transaction() as tx:
        row = awards.under_fence(tx, job_id, held.fence)
        assert row is not None
        said = row.facts["goodbye"]
        assert (said["still"], said["why"], said["reason"]) == (True, word["why"], "a new disk")
        assert node.key.address not in {row.address for row in nodes.watched(tx)}
        assert awards.goodbyes(tx, node.key.address, time.time() - 60) == 1
        assert awards.goodbyes(tx, node.key.address, time.time() + 60) == 0
        found = nodes.get(tx, node.key.address)
        assert found is not None
        assert found.draining
    assert topics(service).count("node.goodbye") == 1


def test_who_said_goodbye_and_comes_back_has_no_more_part_in_the_job(
    service: Service, node: FakeNode, job_id: str
) -> None:
    """Recovery may be about to give the job away without a fencing time."""
    node.connect()
    held = award(service, node, job_id)
    node.send("goodbye", jobs=[{"job_id": job_id, "fence": held.fence, "still": True}])
    line = {"job_id": job_id, "fence": held.fence, "serving": True}
    assert node.beat(line).refused == [job_id]
    node.close()
    welcome = node.connect(({"job_id": job_id, "fence": held.fence, "state": "frozen"},))
    assert (welcome.confirmed, welcome.dropped) == ({}, [job_id])


def test_a_goodbye_for_what_the_node_does_not_hold_changes_nothing(
    service: Service, node: FakeNode, job_id: str
) -> None:
    node.connect()
    held = award(service, node, job_id)
    make_award(service.db, job_id, key(6), node.provider)
    for fence in (held.fence, held.fence + 1, 99):
        node.send("goodbye", jobs=[{"job_id": job_id, "fence": fence, "still": True}])
    node.beat()
    with service.db.transaction() as tx:
        for fence in (held.fence, held.fence + 1):
            row = awards.under_fence(tx, job_id, fence)
            assert row is not None
            assert "goodbye" not in row.facts
    assert "node.goodbye" not in topics(service)
