"""The mirror against the contracts themselves: every lease ends somewhere, every unit is where the chain says it is."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from everlease.chain._generated.enums import CreditReason
from everlease.chain.abi import encode_call
from everlease.chain.deploy import send_and_wait
from everlease.db import Database, explorer, mirror
from everlease.db.models.mirror import ClaimableRow, EscrowRow, LeaseRow, NodeAuthRow, PaymentRow, ProviderRow
from everlease.domain.lease import LeaseState
from indexer.follower import Follower, Step
from tests.support.deployed import DOLLAR, TERMS, Market
from tests.support.mirrors import dump, outbox_balance
from tests.support.postgres import PostgresServer

pytestmark = pytest.mark.anvil


@pytest.fixture
def fresh(postgres_server: PostgresServer) -> Iterator[Database]:
    name = postgres_server.create_database()
    database = Database(postgres_server.url(name))
    yield database
    database.close()
    postgres_server.drop_database(name)


def index(market: Market, database: Database) -> None:
    assert Follower(market.chain, market.deployment, database).catch_up() is Step.IDLE


def assert_equals_chain(market: Market, database: Database) -> None:
    """Every derived row says what the contracts' views say."""
    with database.transaction() as tx:
        for lease in tx.query(LeaseRow):
            seen = market.views.lease(lease.lease_id)
            for name in ("job_id", "provider", "epoch", "node", "rate", "collateral", "reserve", "bond", "paid"):
                assert getattr(lease, name) == getattr(seen, name), (lease.epoch, name)
            for name in ("earned", "seen_at", "seq", "ends_at", "closable_at", "suspended_at", "answer_by", "noticed"):
                assert getattr(lease, name) == getattr(seen, name), (lease.epoch, name)
            assert lease.state == seen.state
        for escrow in tx.query(EscrowRow):
            job = market.views.job(escrow.job_id)
            for name in ("tenant", "watcher", "deadline", "max_epochs", "epochs", "cancelled", "balance", "reserved"):
                assert getattr(escrow, name) == getattr(job, name), name
            assert int(escrow.active_lease or "0", 16) == int(job.active_lease, 16)
        for provider in tx.query(ProviderRow):
            stake = market.views.stake(provider.provider)
            for name in ("staked", "locked", "unbonding", "unbonds_at"):
                assert getattr(provider, name) == getattr(stake, name), name
        held = 0
        for account in tx.query(ClaimableRow):
            assert account.amount == market.views.claimable(account.account)
            held += account.amount
        held += sum(escrow.balance for escrow in tx.query(EscrowRow))
        assert held == market.views.asset_balance(market.deployment.escrow)


def live_through_everything(market: Market) -> str:
    """Epochs that are closed, failed, answered bare, cleared, noticed; then top-up, refund, withdrawals."""
    market.stake()
    job = market.fund(market.order())
    opening, first = market.open_call(job, 1)
    market.send(market.watcher, opening)
    market.anvil.warp(90)
    proof, signature = market.receipt(first, 80, market.views.lease(first).started_at + 80, final=True)
    market.send(market.provider, market.escrow.close(first, proof, signature))

    opening, second = market.open_call(job, 2)
    market.send(market.watcher, opening)
    market.anvil.warp(60)
    proof, signature = market.receipt(second, 30, market.views.lease(second).started_at + 30)
    opening, third = market.open_call(job, 3)
    suspend = market.escrow.suspend(second, proof, signature)
    market.send(market.watcher, market.escrow.multicall([suspend, opening]))
    market.anvil.warp(TERMS.answer_window + 5)
    market.send(market.tenant, market.escrow.fail(second))

    market.send(market.watcher, market.escrow.suspend(third))
    market.send(market.node, market.escrow.answer(third))

    opening, fourth = market.open_call(job, 4)
    market.send(market.watcher, opening)
    market.anvil.warp(30)
    market.send(market.watcher, market.escrow.suspend(fourth))
    suspended = market.views.lease(fourth).suspended_at
    proof, signature = market.receipt(fourth, 25, suspended)
    market.send(market.node, market.escrow.answer(fourth, proof, signature))

    opening, fifth = market.open_call(job, 5)
    market.send(market.tenant, opening)
    market.send(market.provider, market.escrow.notice(fifth))
    market.anvil.warp(TERMS.answer_window * 2 + 5)
    market.send(market.tenant, market.escrow.close(fifth))
    market.send(market.provider, market.staking.request_unstake(DOLLAR))
    market.send(market.provider, market.staking.set_metadata("bafy"))
    market.send(market.tenant, market.asset.approve(market.deployment.escrow, 2**128))
    market.send(market.tenant, market.escrow.top_up(job, 7))
    market.send(market.tenant, market.escrow.extend(job, market.views.job(job).deadline + 5, 30, 2 * DOLLAR))
    market.send(market.tenant, market.escrow.cancel(job))
    market.send(market.tenant, market.escrow.refund(job))
    market.send(market.tenant, market.escrow.withdraw(market.tenant.address))
    market.send(market.provider, market.escrow.withdraw(market.provider.address))
    market.send(market.provider, market.staking.revoke_node(market.node.address))
    return job


def test_the_mirror_equals_the_chain_at_every_turn(market: Market, database: Database, fresh: Database) -> None:
    """Followed block by block through Anvil's moving finality, and read in one go afterwards: the same rows."""
    follower = Follower(market.chain, market.deployment, database)
    sent = Market.send

    def send_and_look(self: Market, key: object, call: object) -> object:
        receipt = sent(self, key, call)  # type: ignore[arg-type]
        follower.catch_up()
        assert_equals_chain(self, database)
        return receipt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Market, "send", send_and_look)
        job = live_through_everything(market)
    index(market, fresh)
    assert dump(database) == dump(fresh)
    with fresh.transaction() as tx:
        states = [lease.state for lease in tx.query(LeaseRow).order_by(LeaseRow.epoch)]
        assert states == [
            LeaseState.CLOSED,
            LeaseState.FAILED,
            LeaseState.FAILED,
            LeaseState.CLEARED,
            LeaseState.CLOSED,
        ]
        reasons = {payment.reason for payment in tx.query(PaymentRow).filter(PaymentRow.job_id == job)}
        assert reasons >= {reason.name for reason in CreditReason if reason.name != "SERVICE_FEE"} | {
            "DEPOSIT",
            "TOP_UP",
        }
        node = tx.get(NodeAuthRow, market.node.address)
        assert node is not None
        assert not node.active
        totals = explorer.stats(tx)
        assert totals["slashed"] == sum(row["slashed"] for row in explorer.slashes(tx, after=None, limit=9).items)


def test_a_real_reorg_voids_an_opened_lease(market: Market, database: Database, fresh: Database) -> None:
    market.stake()
    job = market.fund(market.order())
    market.anvil.mine(6)
    opening, lease = market.open_call(job)
    market.send(market.watcher, opening)
    index(market, database)
    with database.transaction() as tx:
        assert tx.get(LeaseRow, lease) is not None
    market.anvil.reorg(2)
    index(market, database)
    with database.transaction() as tx:
        assert tx.get(LeaseRow, lease) is None
        escrow = tx.get(EscrowRow, job)
        assert escrow is not None
        assert (escrow.active_lease, escrow.epochs) == (None, 0)
    assert_equals_chain(market, database)
    assert set(outbox_balance(database).values()) == {0, 1}
    market.send(market.watcher, opening)
    index(market, database)
    index(market, fresh)
    assert dump(database) == dump(fresh)
    with database.transaction() as tx:
        row = mirror.cursor(tx)
        assert row is not None
        assert row.reorgs == 1


def test_hostile_metadata_stops_nobody(market: Market, database: Database) -> None:
    call = market.staking.set_metadata("x" * 8)
    bad = call.data.replace(b"x" * 8, b"\xff\xfe\x00\x00" * 2)
    market.send(market.provider, replace(call, data=bad))
    index(market, database)
    with database.transaction() as tx:
        provider = tx.get(ProviderRow, market.provider.address)
        assert provider is not None
        assert "\0" not in provider.metadata_cid


def test_others_tokens_in_the_escrow_confuse_nobody(market: Market, database: Database) -> None:
    """A foreign event of the asset is no event of ours."""
    data = encode_call("MockDollar", "transfer", market.deployment.escrow, 5)
    send_and_wait(market.chain, market.tenant, market.deployment.asset, data)
    index(market, database)
    assert dump(database)["idx_event"] == []
