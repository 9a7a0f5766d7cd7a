"""The mirror against the contracts themselves: every lease ends somewhere, every unit is where the chain says it is."""

from collections import Counter
from dataclasses import replace

import pytest

from everlease.chain._generated.enums import CreditReason
from everlease.chain.abi import encode_call
from everlease.chain.deploy import send_and_wait
from everlease.chain.typed_data import job_id, lease_id
from everlease.db import Database, explorer, mirror
from everlease.db.models.mirror import ClaimableRow, EscrowRow, LeaseRow, NodeAuthRow, PaymentRow, ProviderRow
from everlease.db.terms import order_of, params_of
from everlease.domain.lease import ENDED, LeaseState
from everlease.domain.money import pay_for
from indexer.follower import Follower, Step
from tests.support.deployed import DOLLAR, TERMS, Market
from tests.support.mirrors import dump, held, told

pytestmark = pytest.mark.anvil


def index(market: Market, database: Database) -> None:
    assert Follower(market.chain, market.deployment, database).catch_up() is Step.IDLE


def assert_equals_chain(market: Market, database: Database) -> None:
    """Every derived row says what the contracts' views say, and order and params can be made of the rows."""
    views, bond, fee_bps = market.views, TERMS.bond, TERMS.fee_bps
    with database.transaction() as tx:
        held = sum(account.amount for account in tx.query(ClaimableRow))
        for account in tx.query(ClaimableRow):
            assert account.amount == views.claimable(account.account)
        collateral: Counter[str] = Counter()
        for escrow in tx.query(EscrowRow):
            order = order_of(escrow)
            assert job_id(market.deployment.escrow_domain, order) == escrow.job_id
            on_chain, limits = views.job(escrow.job_id), views.limits(order)
            for name in ("deadline", "max_epochs", "max_rate_per_hour"):
                assert getattr(escrow, name) == getattr(limits, name), name
            assert (escrow.epochs, escrow.cancelled) == (on_chain.epochs, on_chain.cancelled)
            assert (escrow.active_lease is not None) == on_chain.active
            aside = withheld = 0
            for lease in tx.query(LeaseRow).filter(LeaseRow.job_id == escrow.job_id):
                assert lease_id(params_of(lease, escrow)) == lease.lease_id
                seen = views.lease(lease.lease_id)
                if lease.state in ENDED:
                    assert (seen.state, lease.reserve, lease.bond) == (LeaseState.NONE, 0, 0)
                    continue
                paid = pay_for(lease.rate, seen.paid)
                assert lease.state == seen.state
                assert (lease.started_at, lease.seen_at) == (seen.started_at, seen.started_at + seen.seen)
                assert (lease.earned, lease.paid, lease.bond) == (seen.earned, paid, bond)
                assert lease.reserve == max(pay_for(lease.rate, seen.covered) - paid, 0)
                times = (lease.ends_at, lease.closable_at)
                disputed = (lease.suspended_at, lease.answer_by)
                assert (seen.ends_at, seen.exit_at) == (disputed if seen.state == LeaseState.SUSPENDED else times)
                aside += lease.reserve + bond
                withheld += paid * fee_bps // 10_000
                collateral[lease.provider] += lease.collateral
            assert (escrow.balance, escrow.reserved) == (on_chain.free + aside, aside)
            assert escrow.fees == on_chain.fees + withheld
            held += escrow.balance + escrow.fees
        assert held == views.asset_balance(market.deployment.escrow)
        for provider in tx.query(ProviderRow):
            stake = views.stake(provider.provider)
            for name in ("staked", "slashed", "unbonding", "unbonds_at"):
                assert getattr(provider, name) == getattr(stake, name), name
            assert provider.locked == views.locked(provider.provider) == collateral[provider.provider]


def live_through_everything(market: Market) -> str:
    """Epochs that are closed, failed, answered bare, cleared, noticed; then top-up, refund, withdrawals."""
    market.stake()
    order = market.order()
    job = market.fund(order)
    opening, first = market.open_call(job, 1)
    market.send(market.watcher, opening)
    market.anvil.warp(90)
    proof, signature = market.receipt(first, 80, market.views.lease(first).started_at + 80, final=True)
    market.send(market.provider, market.escrow.close(market.leases[first], proof, signature))

    opening, second = market.open_call(job, 2)
    market.send(market.watcher, opening)
    market.anvil.warp(60)
    proof, signature = market.receipt(second, 30, market.views.lease(second).started_at + 30)
    opening, third = market.open_call(job, 3)
    suspend = market.escrow.suspend(market.leases[second], proof, signature)
    market.send(market.watcher, market.escrow.multicall([suspend, opening]))
    market.anvil.warp(TERMS.answer_window + 5)
    market.send(market.tenant, market.escrow.fail(market.leases[second]))

    market.send(market.watcher, market.escrow.suspend(market.leases[third]))
    market.send(market.node, market.escrow.answer(market.leases[third]))

    opening, fourth = market.open_call(job, 4)
    market.send(market.watcher, opening)
    market.anvil.warp(30)
    market.send(market.watcher, market.escrow.suspend(market.leases[fourth]))
    suspended = market.views.lease(fourth).ends_at
    proof, signature = market.receipt(fourth, 25, suspended)
    market.send(market.node, market.escrow.answer(market.leases[fourth], proof, signature))

    opening, fifth = market.open_call(job, 5)
    market.send(market.tenant, opening)
    market.send(market.provider, market.escrow.notice(market.leases[fifth]))
    market.anvil.warp(TERMS.answer_window * 2 + 5)
    market.send(market.tenant, market.escrow.close(market.leases[fifth]))
    market.send(market.provider, market.staking.request_unstake(DOLLAR))
    market.send(market.provider, market.staking.set_metadata("bafy"))
    market.send(market.tenant, market.asset.approve(market.deployment.escrow, 2**128))
    market.send(market.tenant, market.escrow.top_up(job, 7))
    market.send(market.tenant, market.escrow.extend(order, order.deadline + 5, 30, 2 * DOLLAR))
    market.send(market.tenant, market.escrow.cancel(order))
    market.send(market.tenant, market.escrow.refund(order))
    market.send(market.tenant, market.escrow.withdraw(market.tenant.address))
    market.send(market.provider, market.escrow.withdraw(market.provider.address))
    market.send(market.tenant, market.escrow.sweep_fees(job))
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
        credits = {"SERVICE", "BOND", "FAIL_REWARD", *(reason.name for reason in CreditReason)}
        assert reasons >= credits | {"DEPOSIT", "TOP_UP"}
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
    assert told(database) == held(database)
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
