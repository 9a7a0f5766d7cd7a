"""Calls for bids and bids."""

import time
from typing import Any

import pytest
from sqlalchemy import select

from everlease.db import auctions, nodes, snapshots
from everlease.db.models.jobs import BidRow
from everlease.db.models.mirror import NodeAuthRow, ProviderRow
from everlease.db.models.nodes import NodeRow
from marketplace.gateway import bidding
from tests.support.deployed import DOLLAR, Market, key
from tests.support.gateway import auction_row, open_auction, topics
from tests.support.marketplace import FakeNode, Service, mirror_stake
from tests.support.waiting import wait_for

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


def test_a_bid_above_the_reserve_is_told_why_it_did_not_win_the_round(
    service: Service, node: FakeNode, job_id: str
) -> None:
    node.connect()
    auction_id = open_auction(service, job_id)
    call = node.expect("call_for_bids")
    node.send("bid", auction_id=auction_id, signed=node.bid(call), missing_bytes=0)
    wait_for(lambda: bids(service))
    with service.db.transaction() as tx:
        auctions.hold(tx, auction_id, 2, {node.key.address: "more than the reserve: it stands"})
    told = node.expect("refusal")
    assert (told.of, told.job_id, told.reason) == ("bid", job_id, "more than the reserve: it stands")
    assert auction_row(service, auction_id).held_round == 2


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


@pytest.mark.parametrize(("staked", "locked"), [(0, 0), (5 * DOLLAR, 5 * DOLLAR), (DOLLAR // 2, 0)])
def test_nodes_without_a_stake_to_lock_are_neither_asked_nor_waited_for(
    service: Service, node: FakeNode, market: Market, job_id: str, staked: int, locked: int
) -> None:
    mirror_stake(service.db, market.provider, staked, locked)
    node.connect()
    auction_id = open_auction(service, job_id)
    wait_for(lambda: node.key.address in auction_row(service, auction_id).unfit)
    row = auction_row(service, auction_id)
    assert row.asked == []
    assert "free stake" in row.unfit[node.key.address]
    with pytest.raises(TimeoutError):
        node.expect("call_for_bids", timeout=0.5)


def test_a_node_whose_stake_is_not_mirrored_yet_is_asked_and_not_waited_for(
    service: Service, node: FakeNode, market: Market, job_id: str
) -> None:
    """Whether the stake is there is judged when the auction is decided."""
    with service.db.transaction() as tx:
        tx.delete(tx.get_one(ProviderRow, market.provider.address))
    node.connect()
    auction_id = open_auction(service, job_id)
    call = node.expect("call_for_bids")
    node.send("bid", auction_id=auction_id, signed=node.bid(call), missing_bytes=0)
    wait_for(lambda: bids(service))
    assert auction_row(service, auction_id).asked == []
    for offers in (0, 1):
        with service.db.transaction() as tx:
            assert len(snapshots._offers(tx, auction_row(service, auction_id))) == offers
        mirror_stake(service.db, market.provider)


def test_a_bid_beyond_the_free_stake_is_refused(service: Service, node: FakeNode, market: Market, job_id: str) -> None:
    mirror_stake(service.db, market.provider, 10 * DOLLAR, locked=8 * DOLLAR)
    node.connect()
    auction_id = open_auction(service, job_id)
    call = node.expect("call_for_bids")
    node.send("bid", auction_id=auction_id, signed=node.bid(call, collateral=3 * DOLLAR), missing_bytes=0)
    assert "of free stake" in node.expect("refusal").reason


def test_a_bid_and_a_decline_of_one_node_are_one_answer(
    service: Service, node: FakeNode, market: Market, job_id: str
) -> None:
    """Two nodes are asked. One says everything that it can; the auction waits for the other all the same."""
    node.connect()
    other = FakeNode(service, market, key(7), market.provider)
    with service.db.transaction() as tx:
        tx.add(NodeAuthRow(node=other.key.address, provider=market.provider.address, active=True, block=1))
    other.connect()
    auction_id = open_auction(service, job_id)
    call = node.expect("call_for_bids")
    node.send("bid", auction_id=auction_id, signed=node.bid(call), missing_bytes=0)
    wait_for(lambda: bids(service))
    node.send("decline", auction_id=auction_id, reason="no")
    node.send("decline", auction_id=auction_id, reason="no, really")
    node.send("bid", auction_id=auction_id, signed=node.bid(call, epoch=2), missing_bytes=0)
    assert node.expect("refusal").of == "bid"
    node.beat()
    row = auction_row(service, auction_id)
    assert set(row.asked) == {node.key.address, other.key.address}
    assert node.key.address not in row.unfit, "whoever has bid doesn't decline"
    assert "auction.answered" not in topics(service)
    other.send("decline", auction_id=auction_id, reason="busy")
    other.send("decline", auction_id=auction_id, reason="busier")
    other.beat()
    assert topics(service).count("auction.answered") == 1
    assert auction_row(service, auction_id).unfit == {other.key.address: "declined: busy"}
    other.close()


def bids(service: Service) -> list[BidRow]:
    with service.db.transaction() as tx:
        return list(tx.scalars(select(BidRow)))


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


def test_a_node_that_connects_later_is_looked_at_alone(
    service: Service, market: Market, node: FakeNode, job_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[str] = []
    really = bidding.unfit

    def unfit(facts: dict[str, Any], *more: Any) -> str | None:
        looked.append(facts["cpu_model"])
        return really(facts, *more)

    monkeypatch.setattr(bidding, "unfit", unfit)
    late = FakeNode(service, market, key(7), market.provider, facts={**node.facts, "cpu_model": "late"})
    with service.db.transaction() as tx:
        tx.add(NodeAuthRow(node=late.key.address, provider=market.provider.address, active=True, block=1))
    node.connect()
    auction_id = open_auction(service, job_id)
    node.expect("call_for_bids")
    time.sleep(0.3)  # its connection, too, led to a look
    looked.clear()
    late.connect()
    assert late.expect("call_for_bids").auction_id == auction_id
    assert looked == ["late"]
    assert auction_row(service, auction_id).asked == [node.key.address], "and not waited for"
    late.close()


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
