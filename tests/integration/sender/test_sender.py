"""The sender with its PostgreSQL journal on a real Anvil with the real contracts."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from everlease.chain.abi import encode_call
from everlease.chain.contracts import Call
from everlease.chain.sender import PumpReport, Sender, SendPolicy
from everlease.db import Database, journal
from everlease.db.journal import PostgresJournal
from everlease.db.models.outbox import TxRow
from everlease.domain.lease import LeaseState
from tests.support.deployed import DOLLAR, Market

pytestmark = pytest.mark.anvil


def sender_of(market: Market, database: Database, **policy: float) -> Sender:
    keys = {key.address: key for key in (market.watcher, market.provider)}
    return Sender(market.chain, PostgresJournal(database), keys, policy=SendPolicy(**policy))  # type: ignore[arg-type]


def enqueue(market: Market, database: Database, key: str, call: Call, *, again: bool = False) -> int:
    with database.transaction() as tx:
        return journal.enqueue(
            tx, action_key=key, sender=market.watcher.address, to=call.to, data=call.data, call=call.name,
            job_id=None, again=again,
        )  # fmt: skip


def row(database: Database, key: str) -> TxRow:
    with database.transaction() as tx:
        found = journal.find(tx, key)
        assert found is not None
        return found


def pump(market: Market, database: Database, times: int = 1) -> PumpReport:
    sender = sender_of(market, database)
    for _ in range(times):
        report = sender.pump(market.watcher.address)
    return report


def test_open_through_the_journal(market: Market, database: Database) -> None:
    market.stake()
    job = market.fund(market.order())
    opening, lease = market.open_call(job)
    enqueue(market, database, f"{job}:1:open", opening)
    pump(market, database)
    assert row(database, f"{job}:1:open").state == "mined"
    assert market.views.lease(lease).state is LeaseState.ACTIVE
    assert row(database, f"{job}:1:open").gas_used or 0 > 21_000
    market.anvil.mine(8)
    assert pump(market, database).open == 0
    assert row(database, f"{job}:1:open").state == "final"


def test_a_revert_never_leaves_and_can_be_tried_again(market: Market, database: Database) -> None:
    job = market.fund(market.order())
    opening, _ = market.open_call(job)
    enqueue(market, database, "open", opening)
    pump(market, database)
    failed = row(database, "open")
    assert failed.state == "failed"
    assert "NodeNotAuthorised" in failed.error
    assert market.chain.nonce(market.watcher.address) == 0
    enqueue(market, database, "open", opening)
    assert row(database, "open").state == "failed"
    market.stake()
    enqueue(market, database, "open", opening, again=True)
    pump(market, database)
    assert row(database, "open").state == "mined"


def test_a_reorg_is_survived_with_the_same_bytes(market: Market, database: Database) -> None:
    for number in range(3):
        enqueue(market, database, f"mint{number}", market.asset.mint(market.watcher.address, DOLLAR))
    pump(market, database)
    before = row(database, "mint2")
    assert market.views.asset_balance(market.watcher.address) == 3 * DOLLAR
    market.anvil.reorg(2)
    assert market.views.asset_balance(market.watcher.address) == DOLLAR
    pump(market, database, 3)
    assert market.views.asset_balance(market.watcher.address) == 3 * DOLLAR
    after = row(database, "mint2")
    assert (after.state, after.raw) == ("mined", before.raw)
    assert after.block_hash != before.block_hash


def test_a_reverted_transaction_is_mined_with_success_after_a_reorg(market: Market, database: Database) -> None:
    """Somebody else takes the dollar in the same block, until a reorg takes that away; the same bytes then succeed."""
    watcher, spender, token = market.watcher, market.provider, market.deployment.asset
    market.send(market.tenant, market.asset.mint(watcher.address, DOLLAR))
    market.send(watcher, market.asset.approve(spender.address, DOLLAR))
    market.anvil.mine(8)
    market.anvil.rpc("evm_setAutomine", False)
    transfer = Call(token, encode_call("MockDollar", "transfer", market.node.address, DOLLAR), "transfer")
    enqueue(market, database, "transfer", transfer)
    pump(market, database)
    taken = encode_call("MockDollar", "transferFrom", watcher.address, spender.address, DOLLAR)
    market.anvil.rpc("eth_sendTransaction", {
        "from": spender.address, "to": token, "data": "0x" + taken.hex(), "gas": hex(100_000),
        "maxFeePerGas": hex(10**12), "maxPriorityFeePerGas": hex(10**11),
    })  # fmt: skip
    market.anvil.mine()
    assert pump(market, database).open == 1
    reverted = row(database, "transfer")
    assert reverted.state == "reverted"
    assert "ERC20InsufficientBalance" in reverted.error
    market.anvil.reorg(1)
    pump(market, database)
    assert row(database, "transfer").state == "sent"
    market.anvil.mine()
    pump(market, database)
    assert (row(database, "transfer").state, row(database, "transfer").error) == ("mined", "")
    market.anvil.mine(8)
    assert pump(market, database).open == 0
    assert (row(database, "transfer").state, row(database, "transfer").raw) == ("final", reverted.raw)
    assert market.views.asset_balance(market.node.address) == DOLLAR


def test_two_senders_at_once(market: Market, database: Database) -> None:
    for number in range(12):
        enqueue(market, database, f"mint{number}", market.asset.mint(market.watcher.address, 1))
    with ThreadPoolExecutor(4) as pool:
        reports = list(pool.map(lambda _: pump(market, database), range(8)))
    assert any(not report.busy for report in reports)
    pump(market, database, 2)
    assert market.views.asset_balance(market.watcher.address) == 12
    assert market.chain.nonce(market.watcher.address) == 12


def test_transactions_that_the_node_forgot_are_sent_again(market: Market, database: Database) -> None:
    market.anvil.rpc("evm_setAutomine", False)
    enqueue(market, database, "mint", market.asset.mint(market.watcher.address, 1))
    pump(market, database)
    market.anvil.rpc("anvil_dropAllTransactions")
    pump(market, database)
    market.anvil.mine()
    pump(market, database)
    assert row(database, "mint").state == "mined"
    assert market.views.asset_balance(market.watcher.address) == 1


def test_a_replacement_is_taken(market: Market, database: Database) -> None:
    """Blocks that are too dear for it, one by one; between them the chain stands still, however often it is pumped."""
    market.anvil.rpc("evm_setAutomine", False)
    enqueue(market, database, "mint", market.asset.mint(market.watcher.address, 1))
    sender = sender_of(market, database, bump_after_s=0.0)
    for attempts in (1, 2, 3):
        for _ in range(3):
            sender.pump(market.watcher.address)
        sent = row(database, "mint")
        assert (sent.state, sent.attempts) == ("sent", attempts)
        if attempts < 3:
            market.anvil.rpc("anvil_setNextBlockBaseFeePerGas", hex(2 * int(sent.max_fee)))
            market.anvil.mine()
    market.anvil.mine()
    sender.pump(market.watcher.address)
    mined = row(database, "mint")
    assert (mined.state, mined.attempts) == ("mined", 3)
    assert market.views.asset_balance(market.watcher.address) == 1
