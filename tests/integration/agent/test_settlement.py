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
from provider_agent.settlement import CLOSE_AFTER_S, NEVER_OPENED_S, Settlement
from tests.support.deployed import DOLLAR, Market

pytestmark = pytest.mark.anvil
RATE = DOLLAR // 2
WHO = "0x" + "77" * 20


class Setting:
    """A funded job with an open lease of the node, and the node's settlement; its clock is the chain's + `ahead`."""

    def __init__(self, market: Market, folder: Path, exposure: int = 1) -> None:
        self.market, self.ahead, self.folder = market, 0.0, folder
        market.stake()
        self.job = market.fund(market.order())
        call, self.lease = market.open_call(self.job, rate=RATE)
        market.send(market.watcher, call)
        self.opened = market.now()
        self.journal = Journal(folder / "journal.db")
        self.params = market.leases[self.lease]
        record = LeaseParamsModel.from_domain(self.params)
        self.journal.put_lease(LeaseRecord(lease_id=self.lease, params=record, fence=1))
        self.settlement = self.settles(self.journal, exposure)

    def settles(self, journal: Journal, exposure: int = 1) -> Settlement:
        """The node's settlement over a journal."""
        return Settlement(
            self.market.chain,
            self.market.deployment,
            self.market.node,
            journal,
            provider=self.market.provider.address,
            exposure=exposure,
            clock=self.now,
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
    assert setting.state is LeaseState.SUSPENDED, "the watcher's final one may come, and pay more"
    setting.pass_time(setting.market.deployment.terms.answer_window // 10 + 1)
    setting.settlement.tick()
    assert setting.state is LeaseState.NONE
    assert setting.market.views.stake(setting.market.provider.address).slashed == 0
    bond, pay = setting.market.deployment.terms.bond, pay_for(RATE, 15)
    assert setting.market.views.claimable(setting.market.provider.address) == bond + pay - pay // 100


def test_it_answers_bare_where_no_receipt_proves_anything_and_no_sooner_than_it_must(setting: Setting) -> None:
    setting.suspend()
    setting.receive(1, setting.opened + 1)
    window = setting.market.deployment.terms.answer_window
    setting.ahead = 10.0 * window
    setting.settlement.tick()
    assert setting.state is LeaseState.SUSPENDED, "the chain's clock counts, not the host's"
    setting.ahead = 0.0
    setting.pass_time(window // 2 - 5)
    setting.settlement.tick()
    assert setting.state is LeaseState.SUSPENDED, "a receipt that clears may come still"
    setting.pass_time(6)
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
    away = Settlement(chain, market.deployment, market.node, setting.journal, provider=WHO, exposure=1, clock=time.time)
    away.tick()
    chain.close()
    assert setting.journal.leases()


def test_a_receipt_that_clears_is_sent_as_soon_as_it_comes(setting: Setting) -> None:
    setting.suspend()
    setting.settlement.tick()
    assert setting.state is LeaseState.SUSPENDED
    setting.receive(0, setting.opened, final=True)
    setting.settlement.tick()
    assert setting.state is LeaseState.NONE
    assert setting.market.views.stake(setting.market.provider.address).slashed == 0


def test_an_answer_pays_more_with_each_block_that_leaves_it_out(setting: Setting) -> None:
    setting.suspend()
    setting.receive(0, setting.opened, final=True)
    anvil = setting.market.anvil
    anvil.rpc("evm_setAutomine", False)
    try:
        setting.settlement.tick()
        assert setting.settlement.urgent
        fees = [_offered(setting)]
        for _ in range(2):
            # A block that has no room for it: it leaves the pool and comes back.
            anvil.rpc("anvil_dropAllTransactions")
            anvil.mine()
            setting.settlement.tick()
            setting.settlement.tick()
            fees.append(_offered(setting))
        assert fees[0] < fees[1] < fees[2]
    finally:
        anvil.rpc("evm_setAutomine", True)
    anvil.mine()
    assert setting.state is LeaseState.NONE


def test_an_answer_is_not_held_up_by_what_was_priced_out_before_it(setting: Setting) -> None:
    setting.receive(10, setting.opened + 1)
    anvil = setting.market.anvil
    anvil.rpc("evm_setAutomine", False)
    try:
        setting.settlement.tick()
        _offered(setting)
        base = int(anvil.rpc("eth_getBlockByNumber", "latest", False)["baseFeePerGas"], 16)
        anvil.rpc("anvil_setNextBlockBaseFeePerGas", hex(100 * base))
        anvil.mine()
    finally:
        anvil.rpc("evm_setAutomine", True)
    setting.suspend()
    assert setting.market.views.lease(setting.lease).paid == 0, "the collect still waits"
    setting.receive(10, setting.opened + 1, final=True, seq=2)
    setting.ahead = -20.0  # No time for patience went by.
    setting.settlement.tick()
    assert setting.state is LeaseState.NONE
    assert setting.market.views.stake(setting.market.provider.address).slashed == 0


def test_a_receipt_that_clears_takes_the_place_of_a_bare_answer_that_is_in_no_block(setting: Setting) -> None:
    setting.suspend()
    setting.receive(1, setting.opened + 1)
    setting.pass_time(setting.market.deployment.terms.answer_window // 2 + 1)
    anvil = setting.market.anvil
    anvil.rpc("evm_setAutomine", False)
    try:
        setting.settlement.tick()
        anvil.rpc("anvil_dropAllTransactions")
        anvil.mine()
        setting.receive(1, setting.opened + 1, final=True, seq=2)
        setting.settlement.tick()
        setting.settlement.tick()
    finally:
        anvil.rpc("evm_setAutomine", True)
    anvil.mine()
    assert setting.state is LeaseState.NONE
    assert setting.market.views.stake(setting.market.provider.address).slashed == 0


def _offered(setting: Setting) -> int:
    """The most that the waiting transaction of the node pays per gas, wei."""
    waiting = setting.market.anvil.rpc("txpool_content")["pending"]
    (found,) = [txs for sender, txs in waiting.items() if sender.lower() == setting.market.node.address]
    (tx,) = found.values()
    return int(tx["maxFeePerGas"], 16)


def test_a_lease_that_the_journal_lost_is_found_on_chain_and_answered(setting: Setting) -> None:
    empty = Journal(setting.folder / "another.db")
    settlement = setting.settles(empty)
    setting.suspend()
    settlement.tick()
    (found,) = empty.leases()
    assert (found.lease_id, found.params.to_domain()) == (setting.lease, setting.params)
    setting.pass_time(setting.market.deployment.terms.answer_window // 2 + 1)
    settlement.tick()
    assert setting.state is LeaseState.NONE
    assert setting.market.views.stake(setting.market.provider.address).slashed < setting.params.collateral


def test_a_lease_that_was_taken_for_settled_is_taken_up_again(setting: Setting) -> None:
    record = setting.journal.lease(setting.lease)
    assert record is not None
    setting.journal.put_lease(record.model_copy(update={"settled": True}))
    setting.settlement.tick()
    assert [lease.lease_id for lease in setting.journal.leases()] == [setting.lease]


def test_leases_of_other_nodes_are_left_to_them(setting: Setting) -> None:
    empty = Journal(setting.folder / "another.db")
    market = setting.market
    other = Settlement(
        market.chain,
        market.deployment,
        market.watcher,
        empty,
        provider=market.provider.address,
        exposure=1,
        clock=setting.now,
    )
    other.tick()
    assert empty.leases() == []


def test_a_lease_that_can_not_be_opened_any_more_is_forgotten(setting: Setting) -> None:
    _, later = setting.market.open_call(setting.job, 2)
    params = LeaseParamsModel.from_domain(setting.market.leases[later])
    until = setting.market.now() + 600
    setting.journal.put_lease(LeaseRecord(lease_id=later, params=params, fence=2, open_until=until))
    setting.pass_time(600 + NEVER_OPENED_S - 60)
    setting.settlement.tick()
    assert len(setting.journal.leases()) == 2
    setting.pass_time(120)
    setting.settlement.tick()
    assert [lease.lease_id for lease in setting.journal.leases()] == [setting.lease]
