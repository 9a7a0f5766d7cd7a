"""A lease is journaled with the first command that names it, and only if our own bid makes it."""

from pathlib import Path

import pytest

from everlease.chain.typed_data import lease_id
from everlease.wire.commands import Prepare
from everlease.wire.terms import BidModel, OrderModel
from provider_agent.errors import SpecRefused
from provider_agent.journal import Journal
from provider_agent.records import BidRecord
from provider_agent.terms import agree_on_lease

JOB = "0x" + "ab" * 32
WHO = "0x" + "77" * 20
ORDER = OrderModel(
    tenant=WHO, watcher=WHO, job_spec=JOB, max_rate_per_hour=9, deposit=9, min_collateral=1, max_silence=6,
    max_epochs=9, epoch_fee=0, deadline=99, nonce=1,
)  # fmt: skip
BID = BidRecord(
    digest="0x" + "01" * 32,
    bid=BidModel(
        provider=WHO, node=WHO, order_hash=JOB, epoch=1, min_rate_per_hour=4, collateral=1, deadline=90, slot=1
    ),
    order=ORDER,
)


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    found = Journal(tmp_path / "journal.db")
    found.put_bid(BID)
    return found


def prepare(rate: int | None, name: str | None) -> Prepare:
    return Prepare(job_id=JOB, fence=3, step="prepare/3", spec={}, store_token="t", lease_id=name, rate_per_hour=rate)


def test_prepare_journals_the_lease_before_anything_else_happens(journal: Journal, tmp_path: Path) -> None:
    params = BID.params(5)
    agree_on_lease(journal, prepare(5, lease_id(params)))
    journal.close()
    (kept,) = Journal(tmp_path / "journal.db").leases()
    assert (kept.lease_id, kept.params.to_domain(), kept.fence) == (lease_id(params), params, 3)
    assert kept.open_until == BID.bid.deadline


def test_a_settled_lease_stays_settled_when_its_command_is_repeated(journal: Journal) -> None:
    name = lease_id(BID.params(5))
    agree_on_lease(journal, prepare(5, name))
    (kept,) = journal.leases()
    journal.put_lease(kept.model_copy(update={"settled": True}))
    agree_on_lease(journal, prepare(5, name))
    assert journal.leases() == []


def test_a_preparation_ahead_of_a_migration_names_no_lease(journal: Journal) -> None:
    agree_on_lease(journal, prepare(None, None))
    assert journal.leases() == []


@pytest.mark.parametrize(("rate", "named"), [(3, 3), (5, 6)])
def test_a_lease_below_our_rate_or_of_another_rate_is_refused(journal: Journal, rate: int, named: int) -> None:
    with pytest.raises(SpecRefused, match="not one that this node's bids allow"):
        agree_on_lease(journal, prepare(rate, lease_id(BID.params(named))))
    assert journal.leases() == []
