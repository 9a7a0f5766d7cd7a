"""A reserve on real tables: fixed with the auction, outliving the process, by one clock for all replicas."""

import time
from dataclasses import asdict, replace

import pytest
from sqlalchemy import select

from everlease.db import auctions
from everlease.db.models.jobs import AuctionRow, BidRow, PriceRow
from everlease.domain.reserve import Posted
from recovery import apply
from tests.support.recovery import Stage

pytestmark = pytest.mark.anvil


def priced(stage: Stage) -> Stage:
    """Reserves that start at 50,000, under what is bid: rounds of six seconds."""
    policy = replace(stage.desk.policy, posted=Posted(cpu=50_000, gib=0, gpu=0), reserve_rise_s=60.0)
    stage.desk = replace(stage.desk, policy=policy)
    return stage


def row(stage: Stage, job: str) -> AuctionRow:
    with stage.database.transaction() as tx:
        found = tx.scalar(select(AuctionRow).where(AuctionRow.job_id == job).order_by(AuctionRow.id.desc()))
        assert found is not None
        return found


def test_bids_above_the_reserve_stand_over_a_restart_and_a_fast_clock_wins_nothing(stage: Stage) -> None:
    priced(stage)
    stage.node(5)
    job = stage.launch()
    stage.until(job, lambda it: it.has_open_auction(job))
    auction = row(stage, job)
    with stage.database.transaction() as tx:
        fixed, _ = auctions.reserve_of(tx, auction.id)
    maximum = stage.job(job).order["max_rate_per_hour"]
    assert (fixed.start, fixed.maximum, fixed.source) == (50_000, maximum, "the posted prices")
    stage.bid(job, 5, rate=50_001)
    fast = replace(stage.desk, clock=lambda: time.time() + 60)
    for desk in (stage.desk, fast, replace(stage.desk, policy=replace(stage.desk.policy, posted=Posted(1, 1, 1)))):
        apply.advance(desk, job)  # each a process of its own: all that they share is in the tables
        assert stage.job(job).state == "AUCTIONING"
    with stage.database.transaction() as tx:
        (bid,) = tx.scalars(select(BidRow)).all()
        assert "asks 50001 an hour, more than the reserve of 50000 in round 0" in bid.held
        (told,) = auctions.held_bids(tx, auction.id)
        assert (told.node, told.job_id, told.why) == (bid.node, job, bid.held)
        assert auctions.reserve_of(tx, auction.id)[0] == fixed, "settings that change do not change it"
    stage.until(job, lambda it: it.has_command(job, "prepare"))
    award = stage.award(job)
    assert award.auction_id == auction.id
    assert award.rate_per_hour in {fixed.at(award.provider, number) for number in range(1, 11)}
    with stage.database.transaction() as tx:
        assert auctions.held_bids(tx, auction.id) == []
        assert tx.scalars(select(PriceRow)).all() == [], "the reserve set the price"


def test_an_award_that_a_rival_priced_is_noted_and_the_next_auction_knows_it(stage: Stage) -> None:
    stage.node(5)
    stage.node(6)
    job = stage.launch()
    stage.until(job, lambda it: it.has_open_auction(job))
    stage.bid(job, 5, rate=70_000)
    stage.bid(job, 6, rate=80_000)
    stage.until(job, lambda it: it.has_command(job, "prepare"))
    award = stage.award(job)
    with stage.database.transaction() as tx:
        (noted,) = tx.scalars(select(PriceRow)).all()
    assert (noted.lease_id, noted.provider, noted.seconds) == (award.lease_id, award.provider.lower(), None)
    assert award.rate_per_hour == 80_000, asdict(stage.desk.policy.posted)
