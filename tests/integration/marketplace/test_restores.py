"""Calls for bids and preparations name what the checkpoint needs that will really be restored."""

import time
from datetime import UTC, datetime
from typing import Any

import pytest

from everlease.db import commands, jobs, nodes
from everlease.db.models.jobs import AuctionRow, CheckpointRow
from tests.support.deployed import key
from tests.support.gateway import auction_row, open_auction
from tests.support.marketplace import FACTS, REQUIREMENTS, FakeNode, Service, make_award

pytestmark = pytest.mark.anvil
OLD, NEW = {**FACTS, "kernel": "6.1.0-18"}, {**FACTS, "kernel": "6.12.9"}


def runs_elsewhere(service: Service, node: FakeNode, job_id: str, facts: dict[str, Any]) -> int:
    """The job runs on another host with these facts; its head was taken on one with kernel 6.1."""
    other = key(6)
    with service.db.transaction() as tx:
        nodes.admit(tx, other.address, node.provider.address, "s", "", "1", facts)
    held = make_award(service.db, job_id, other, node.provider)
    with service.db.transaction() as tx:
        job = jobs.get(tx, job_id)
        row = CheckpointRow(
            job_id=job_id, depth=job.head_seq + 1, fence=held.fence, epoch=1, node=other.address, mode="process",
            manifest="bafkrei" + "a" * 52, predecessor=None, block_cids=[], generation=1, generations=[1],
            requirements={**REQUIREMENTS, "kernel": "6.1.0-18"}, logical_bytes=1, new_bytes=1, pause_s=0.1,
            total_s=0.2, final=False, damaged="", taken_at=datetime.now(UTC),
        )  # fmt: skip
        jobs.advance_head(tx, row)
    return held.fence


def migration(service: Service, job_id: str) -> int:
    """An open auction for a move of the running job."""
    auction_id = open_auction(service, job_id)
    with service.db.transaction() as tx:
        tx.get_one(AuctionRow, auction_id).plan = "migration"
    return auction_id


def refusal(service: Service, auction_id: int, node: FakeNode) -> str:
    until = time.monotonic() + 10
    while node.key.address not in auction_row(service, auction_id).unfit and time.monotonic() < until:
        time.sleep(0.05)
    return str(auction_row(service, auction_id).unfit[node.key.address])


def test_a_second_move_is_matched_against_the_host_that_runs_the_job_now(
    service: Service, node: FakeNode, job_id: str
) -> None:
    """The head is of kernel 6.1; the checkpoint that will be moved is taken on 6.12."""
    runs_elsewhere(service, node, job_id, NEW)
    with service.db.transaction() as tx:
        nodes.admit(tx, node.key.address, node.provider.address, "s", "", "1", OLD)
    auction_id = migration(service, job_id)
    node.facts = OLD
    node.connect()
    assert "older" in refusal(service, auction_id, node)


def test_a_recovery_is_matched_against_the_head(service: Service, node: FakeNode, job_id: str) -> None:
    runs_elsewhere(service, node, job_id, NEW)
    auction_id = open_auction(service, job_id)
    node.facts = OLD
    node.connect()
    call = node.expect("call_for_bids")
    assert (call.auction_id, call.checkpoint_requirements["kernel"]) == (auction_id, "6.1.0-18")


def test_a_preload_names_the_needs_of_the_checkpoint_to_be_taken(service: Service, node: FakeNode, job_id: str) -> None:
    fence = runs_elsewhere(service, node, job_id, NEW)
    node.facts = NEW
    node.connect()
    with service.db.transaction() as tx:
        head = jobs.get(tx, job_id).head_manifest
        spec = jobs.get(tx, job_id).spec
    payload = {"spec": spec, "image_manifest": None, "image_archive_bytes": 0, "checkpoint": head}
    with service.db.transaction() as tx:
        deadline = datetime.fromtimestamp(time.time() + 60, UTC)
        commands.issue(tx, node.key.address, job_id, fence, "preload/1", "prepare", payload, deadline)
    command = node.expect("command").command
    assert (command.checkpoint, command.checkpoint_requirements["kernel"]) == (head, "6.12.9")


@pytest.mark.parametrize("whom", ["key", "provider"])
def test_a_node_that_is_excluded_itself_or_by_its_provider_is_told_why(
    service: Service, node: FakeNode, job_id: str, whom: str
) -> None:
    auction_id = open_auction(service, job_id, excluded={getattr(node, whom).address: "it was late with the job"})
    node.connect()
    assert refusal(service, auction_id, node) == "it was late with the job"
