"""Settlement against the real contracts: collect, answer with and without proof, close, and an RPC that is away."""

import time
from pathlib import Path

import pytest

from everlease.chain.rpc import RpcChain
from everlease.domain.lease import LeaseState
from everlease.domain.money import pay_for
from everlease.wire.terms import LeaseParamsModel, ReceiptModel, SignedReceipt
from provider_agent.journal import Journal
from provider_agent.records import LeaseRecord
from provider_agent.settlement import CLOSE_AFTER_S, Settlement
from tests.support.deployed import DOLLAR, Market

pytestmark = pytest.mark.anvil
RATE = DOLLAR // 2


class Setting:
    """A funded job with an open lease of the node, and the node's settlement; its clock is the chain's + `ahead`."""

    def __init__(self, market: Market, folder: Path, exposure: int = 1) -> None:
        self.market, self.ahead = market, 0.0
        market.stake()
        self.job = market.fund(market.order())
        call, self.lease = market.open_call(self.job, rate=RATE)
        market.send(market.watcher, call)
        self.opened = market.now()
        self.journal = Journal(folder / "journal.db")
        self.params = market.leases[self.lease]
        record = LeaseParamsModel.from_domain(self.params)
        self.journal.put_lease(LeaseRecord(lease_id=self.lease, params=record, fence=1))
        self.settlement = Settlement(
            market.chain, market.deployment, market.node, self.journal, exposure=exposure, clock=self.now
        )

    def now(self) -> float:
        return self.market.now() + self.ahead

    def receive(self, earned: int, seen_at: int, *, final: bool = False, seq: int = 1) -> None:
        receipt, signature = self.market.receipt(self.lease, earned, seen_at, final, seq)
        model = ReceiptModel.from_domain(receipt)
        assert self.journal.keep_receipt(SignedReceipt(receipt=model, signature=signature))

    def pass_time(self, seconds: int) -> None:
        self.market.anvil.warp(seconds)

    def suspend(self) -> None:
        self.pass_time(20)
        self.market.send(self.market.watcher, self.market.escrow.suspend(self.params))

    @property
    def state(self) -> LeaseState:
        return self.market.views.lease(self.lease).state


@pytest.fixture
def setting(market: Market, tmp_path: Path) -> Setting:
    return Setting(market, tmp_path)


def test_it_collects_what_was_earned_once(setting: Setting) -> None:
    setting.pass_time(120)
    setting.receive(100, setting.opened + 100)
    for _ in range(3):
        setting.settlement.tick()
    assert setting.market.views.lease(setting.lease).paid == 100
    assert setting.journal.leases(), "the lease is still active"


def test_it_waits_below_the_bounded_exposure(market: Market, tmp_path: Path) -> None:
    setting = Setting(market, tmp_path, exposure=10 * DOLLAR)
    setting.pass_time(120)
    setting.receive(100, setting.opened + 100)
    setting.settlement.tick()
    assert market.views.lease(setting.lease).paid == 0


def test_it_answers_a_suspension_with_the_receipt_that_proves_it(setting: Setting) -> None:
    setting.suspend()
    suspended_at = setting.market.views.lease(setting.lease).ends_at
    setting.receive(15, suspended_at - 1)
    setting.settlement.tick()
    assert setting.state is LeaseState.NONE
    assert setting.market.views.stake(setting.market.provider.address).slashed == 0
    bond, pay = setting.market.deployment.terms.bond, pay_for(RATE, 15)
    assert setting.market.views.claimable(setting.market.provider.address) == bond + pay - pay // 100


def test_it_answers_bare_where_no_receipt_proves_anything(setting: Setting) -> None:
    setting.suspend()
    setting.receive(1, setting.opened + 1)
    setting.settlement.tick()
    assert setting.state is LeaseState.NONE
    lost = 100 * DOLLAR - setting.market.views.stake(setting.market.provider.address).staked
    assert 0 < lost < setting.params.collateral, "the drop penalty, not the whole collateral"
    setting.settlement.tick()
    setting.settlement.tick()
    assert setting.journal.leases() == []


def test_it_closes_after_a_final_receipt_that_the_watcher_forgot(setting: Setting) -> None:
    setting.pass_time(60)
    setting.receive(50, setting.opened + 50, final=True)
    setting.settlement.tick()
    assert setting.state is LeaseState.ACTIVE, "the watcher comes first"
    setting.ahead = CLOSE_AFTER_S + 5
    setting.settlement.tick()
    assert setting.state is LeaseState.NONE
    setting.settlement.tick()
    assert setting.journal.leases() == []
    assert setting.market.views.claimable(setting.market.provider.address) > 0


def test_a_lease_that_was_never_opened_is_left_alone(setting: Setting) -> None:
    _, later = setting.market.open_call(setting.job, 2)
    params = LeaseParamsModel.from_domain(setting.market.leases[later])
    setting.journal.put_lease(LeaseRecord(lease_id=later, params=params, fence=2))
    setting.settlement.tick()
    assert len(setting.journal.leases()) == 2


def test_an_rpc_that_is_away_costs_a_tick_alone(market: Market, tmp_path: Path) -> None:
    setting = Setting(market, tmp_path)
    chain = RpcChain.connect(["http://127.0.0.1:9"], timeout=0.2)
    away = Settlement(chain, market.deployment, market.node, setting.journal, exposure=1, clock=time.time)
    away.tick()
    chain.close()
    assert setting.journal.leases()
