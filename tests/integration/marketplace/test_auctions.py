"""Calls for bids and bids."""

import time
from typing import Any

import pytest
from sqlalchemy import select

from everlease.db import nodes
from everlease.db.models.jobs import BidRow
from everlease.db.models.nodes import NodeRow
from tests.support.deployed import key
from tests.support.gateway import auction_row, open_auction, topics
from tests.support.marketplace import FakeNode, Service

pytestmark = pytest.mark.anvil


def test_a_call_is_answered_by_a_bid(service: Service, node: FakeNode, job_id: str) -> None:
    node.connect()
    auction_id = open_auction(service, job_id)
    call = node.expect("call_for_bids")
    assert (call.order_hash, call.epoch, call.auction_id) == (job_id, 1, auction_id)
    node.send("bid", auction_id=auction_id, signed=node.bid(call), missing_bytes=123)
    until = time.monotonic() + 10
    while "auction.answered" not in topics(service) and time.monotonic() < until:
        time.sleep(0.05)
    assert "auction.answered" in topics(service)
    with service.db.transaction() as tx:
        (bid,) = tx.scalars(select(BidRow)).all()
    assert (bid.node, bid.missing_bytes) == (node.key.address, 123)
    assert auction_row(service, auction_id).asked == [node.key.address]


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"min_rate_per_hour": 2_000_000}, "pays at most"),
        ({"epoch": 2}, "epoch 2"),
        ({"collateral": 1}, "collateral"),
        ({"order_hash": "0x" + "01" * 32}, "another order"),
        ({"deadline": 1}, "expires"),
        ({"node": key(6).address}, "names node"),
    ],
)
def test_a_wrong_bid_is_refused(
    service: Service, node: FakeNode, job_id: str, changes: dict[str, Any], word: str
) -> None:
    node.connect()
    auction_id = open_auction(service, job_id)
    call = node.expect("call_for_bids")
    node.send("bid", auction_id=auction_id, signed=node.bid(call, **changes), missing_bytes=0)
    assert word in node.expect("refusal").reason
    assert auction_row(service, auction_id).unfit[node.key.address].startswith("declined: its bid was refused")


def test_a_bid_with_anothers_signature_is_refused(service: Service, node: FakeNode, job_id: str) -> None:
    node.connect()
    auction_id = open_auction(service, job_id)
    call = node.expect("call_for_bids")
    signed = node.bid(call)
    signed["bid"]["slot"] = 8
    node.send("bid", auction_id=auction_id, signed=signed, missing_bytes=0)
    assert "signed neither" in node.expect("refusal").reason


def test_who_does_not_fit_is_not_asked_and_the_reason_is_kept(service: Service, node: FakeNode, job_id: str) -> None:
    node.facts = {**node.facts, "memory_bytes": 1 << 20}
    node.connect()
    auction_id = open_auction(service, job_id)
    until = time.monotonic() + 10
    while not auction_row(service, auction_id).unfit and time.monotonic() < until:
        time.sleep(0.05)
    row = auction_row(service, auction_id)
    assert row.asked == []
    assert "memory" in row.unfit[node.key.address]


def test_a_node_that_connects_during_an_auction_is_asked(service: Service, node: FakeNode, job_id: str) -> None:
    auction_id = open_auction(service, job_id)
    node.connect()
    assert node.expect("call_for_bids").auction_id == auction_id


def test_facts_that_are_said_anew_count_at_once(service: Service, node: FakeNode, job_id: str) -> None:
    """As when a host's trial is over: it fits by now, and the auction is still open. The connection lives on."""
    proved = node.facts
    node.facts = {**proved, "runtime": {**proved["runtime"], "other_users": False, "reason": "root's alone"}}
    node.connect()
    auction_id = open_auction(service, job_id)
    until = time.monotonic() + 10
    while not auction_row(service, auction_id).unfit and time.monotonic() < until:
        time.sleep(0.05)
    assert "root's alone" in auction_row(service, auction_id).unfit[node.key.address]
    node.send("facts", facts=proved)
    assert node.expect("call_for_bids").auction_id == auction_id
    with service.db.transaction() as tx:
        row = nodes.get(tx, node.key.address)
        assert row is not None
        assert row.facts == proved
        assert row.session is not None
        assert not nodes.restate(tx, node.key.address, row.session, proved), "nothing new"
        assert not nodes.restate(tx, node.key.address, "another session", {})
    with service.db.transaction() as tx:
        assert tx.get_one(NodeRow, node.key.address).facts == proved, "a session that was replaced has no say"
