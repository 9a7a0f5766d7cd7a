"""Bids that arrive at the same moment, over several connections."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from threading import Barrier

import pytest
from sqlalchemy import select

from everlease.db import Database, auctions
from everlease.db.models.jobs import AuctionRow, JobRow
from everlease.db.models.outbox import OutboxRow
from everlease.domain.reserve import Reserve

JOB = "0x" + "ab" * 32
NODES = [f"0x{number:040x}" for number in range(1, 9)]


@pytest.fixture
def auction(database: Database) -> AuctionRow:
    now = datetime.now(UTC)
    with database.transaction() as tx:
        tx.add(
            JobRow(
                id=JOB, name="job", tenant="0x" + "02" * 20, watcher="0x" + "03" * 20, order={}, spec={},
                order_signature="0x", image_digest="", state="AUCTIONING",
            )
        )  # fmt: skip
        tx.flush()
        ends = now + timedelta(seconds=1)
        called = auctions.call(
            tx,
            JOB,
            epoch=1,
            plan="first",
            mode="process",
            excluded={},
            opened_at=now,
            closes_at=ends,
            bids_until=ends,
            reserve=Reserve(1, 10, 1.0, 60.0),
        )
        auctions.note_asked(tx, called, NODES, {})
        return tx.get_one(AuctionRow, called)


def test_bids_and_declines_at_once_all_count_and_the_last_one_is_announced(
    database: Database, auction: AuctionRow
) -> None:
    together = Barrier(len(NODES))

    def answer(node: str) -> None:
        together.wait()
        with database.transaction() as tx:
            if node == NODES[0]:
                auctions.add_decline(tx, auction, node, "busy")
            else:
                auctions.add_bid(tx, auction, node, node, {}, "0x", 0)

    with ThreadPoolExecutor(len(NODES)) as pool:
        list(pool.map(answer, NODES))
    with database.transaction() as tx:
        assert {bid.node for bid in auctions.bids_of(tx, auction.id)} == set(NODES[1:])
        announced = [row for row in tx.scalars(select(OutboxRow)) if row.topic == "auction.answered"]
        assert len(announced) == 1


def test_who_is_asked_later_is_not_waited_for_and_stands_for_nobody(database: Database, auction: AuctionRow) -> None:
    """Nor does a node that answers twice stand for one that has not answered."""
    late = "0x" + "77" * 20
    with database.transaction() as tx:
        auctions.note_asked(tx, auction.id, [late], {})
        for node in NODES[1:]:
            auctions.add_bid(tx, auction, node, node, {}, "0x", 0)
        auctions.add_decline(tx, auction, late, "busy")
        auctions.add_decline(tx, auction, NODES[1], "busy after all")
    with database.transaction() as tx:
        assert "auction.answered" not in set(tx.scalars(select(OutboxRow.topic)))
        auctions.add_decline(tx, auction, NODES[0], "busy")
    with database.transaction() as tx:
        assert "auction.answered" in set(tx.scalars(select(OutboxRow.topic)))


def test_a_closed_auction_takes_nothing(database: Database, auction: AuctionRow) -> None:
    with database.transaction() as tx:
        auctions.close(tx, auction.id, "nobody", {}, datetime.now(UTC))
        auctions.add_bid(tx, auction, NODES[0], NODES[0], {}, "0x", 0)
        auctions.add_decline(tx, auction, NODES[1], "busy")
    with database.transaction() as tx:
        assert auctions.bids_of(tx, auction.id) == []
        assert tx.get_one(AuctionRow, auction.id).unfit == {}
        assert auctions.open_auctions(tx) == []
