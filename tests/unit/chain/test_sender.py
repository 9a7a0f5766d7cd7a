"""The sender on a simulated chain: a crash at every step, reorgs, lost pools, foreign transactions, dear blocks."""

from collections.abc import Iterator
from typing import Any

import pytest
from eth_account import Account

from everlease.chain.errors import CallReverted, KeyRefused
from everlease.chain.keys import Key
from everlease.chain.memory import Emitted, MemoryChain
from everlease.chain.memory_journal import MemoryJournal
from everlease.chain.sender import Sender, SendPolicy

KEY = Key.of(b"\5" * 32)
TARGET = "0x" + "aa" * 20
GWEI = 10**9


class Crash(Exception):
    """The process dies here."""


class Crashing:
    """Wraps a chain or journal: the ``at``-th call of any method dies, before or after it took effect."""

    def __init__(self, inner: Any, counter: Iterator[int], at: int, *, after: bool) -> None:
        self._inner, self._counter, self._at, self._after = inner, counter, at, after

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._inner, name)
        if name == "hold":
            return method

        def call(*arguments: Any, **named: Any) -> Any:
            fatal = next(self._counter) == self._at
            if fatal and not self._after:
                raise Crash(name)
            result = method(*arguments, **named)
            if fatal:
                raise Crash(name)
            return result

        return call


class World:
    """One chain, one journal, a clock, and a count of effects per call data on the canonical chain."""

    def __init__(self, **policy: Any) -> None:
        self.now = 1000.0
        self.reverting: set[bytes] = set()
        self.chain = MemoryChain(finality=3, contract=self._contract)
        self.journal = MemoryJournal(lambda: self.now)
        self.policy = SendPolicy(**policy)

    def _contract(self, sender: str, to: str, data: bytes) -> list[Emitted]:
        if data in self.reverting:
            raise CallReverted("Nope", {"data": data.hex()})
        return [(TARGET, (), data)] if to == TARGET else []

    def sender(self, chain: Any = None, journal: Any = None) -> Sender:
        return Sender(
            chain or self.chain, journal or self.journal, {KEY.address: KEY}, policy=self.policy,
            clock=lambda: self.now,
        )  # fmt: skip

    def enqueue(self, name: str, job_id: str | None = None) -> int:
        return self.journal.enqueue(name, KEY.address, TARGET, name.encode(), job_id=job_id)

    def effects(self) -> list[str]:
        return [log.data.decode() for log in self.chain.logs([TARGET], 0, 10_000)]

    def pass_over(self) -> None:
        """A block too dear for any transaction of ours, and the time until it may be replaced."""
        usual, self.chain.base_fee = self.chain.base_fee, 10**6 * GWEI
        self.chain.mine()
        self.chain.base_fee = usual
        self.now += 16

    def versions(self, tx_id: int) -> int:
        return len(self.journal.get(tx_id).offers)

    def settle(self, rounds: int = 8) -> None:
        for _ in range(rounds):
            self.sender().pump(KEY.address)
            self.chain.mine()
            self.now += 20


def foreign(nonce: int, fee: int = 5 * GWEI) -> bytes:
    fields = {
        "type": 2, "chainId": 31337, "nonce": nonce, "gas": 60_000, "maxFeePerGas": fee, "maxPriorityFeePerGas": fee,
        "to": b"\x22" * 20, "data": b"", "value": 0,
    }  # fmt: skip
    return bytes(Account.sign_transaction(fields, KEY.secret).raw_transaction)


def test_a_transaction_goes_its_way() -> None:
    world = World()
    tx_id = world.enqueue("a")
    assert world.sender().pump(KEY.address).open == 1
    assert world.journal.get(tx_id).state == "sent"
    world.chain.mine()
    world.sender().pump(KEY.address)
    assert world.journal.get(tx_id).state == "mined"
    world.chain.mine(3)
    assert world.sender().pump(KEY.address).open == 0
    assert world.journal.events == [("tx.sent", "a"), ("tx.mined", "a"), ("tx.final", "a")]


def test_the_same_key_has_one_effect() -> None:
    world = World()
    assert world.enqueue("a") == world.enqueue("a")
    world.settle()
    assert world.effects() == ["a"]


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("at", range(40))
def test_killed_anywhere_and_started_again(at: int, after: bool) -> None:
    world = World(displaced_after_s=1e9)
    for name in "abc":
        world.enqueue(name)
    counter = iter(range(10_000))
    crashing = [Crashing(inner, counter, at, after=after) for inner in (world.chain, world.journal)]
    try:
        for _ in range(3):
            world.sender(*crashing).pump(KEY.address)
            world.chain.mine()
    except Crash:
        pass
    world.settle()
    assert sorted(world.effects()) == ["a", "b", "c"]
    assert not world.journal.open(KEY.address)


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_a_reorg_takes_transactions_and_they_come_back(depth: int) -> None:
    world = World(displaced_after_s=1e9)
    for name in "abc":
        world.enqueue(name)
        world.sender().pump(KEY.address)
        world.chain.mine()
    world.sender().pump(KEY.address)
    world.chain.reorg(depth)
    assert len(world.effects()) == 3 - depth
    world.sender().pump(KEY.address)
    assert sum(topic == "tx.dropped" for topic, _ in world.journal.events) == depth
    world.settle()
    assert sorted(world.effects()) == ["a", "b", "c"]
    assert not world.journal.open(KEY.address)


def test_a_lost_pool_is_refilled_with_the_same_bytes() -> None:
    world = World()
    tx_id = world.enqueue("a")
    world.sender().pump(KEY.address)
    before = world.journal.get(tx_id).raw
    world.chain.forget_pool()
    world.sender().pump(KEY.address)
    assert world.journal.get(tx_id).raw == before
    world.chain.mine()
    assert world.effects() == ["a"]


def test_a_slow_one_is_replaced_up_to_the_cap() -> None:
    world = World(max_fee_cap=4 * GWEI)
    tx_id = world.enqueue("a")
    world.sender().pump(KEY.address)
    for _ in range(5):
        world.pass_over()
        world.sender().pump(KEY.address)
    row = world.journal.get(tx_id)
    assert len(row.offers) > 1
    assert all(offer.max_fee <= 4 * GWEI for offer in row.offers.values())
    world.settle()
    assert world.effects() == ["a"]
    assert world.journal.get(tx_id).state == "final"


def test_a_chain_that_stands_still_drives_no_fee() -> None:
    """Only a block that came without it tells that the price is too low; each such block counts once."""
    world = World()
    tx_id = world.enqueue("a")
    world.sender().pump(KEY.address)
    for expected in (1, 2, 3):
        for _ in range(20):
            world.now += 60
            world.sender().pump(KEY.address)
        assert world.versions(tx_id) == expected
        world.pass_over()
        world.sender().pump(KEY.address)
        assert world.versions(tx_id) == expected + 1
    world.chain.mine()
    assert world.effects() == ["a"]


def test_a_block_alone_is_no_reason_to_pay_more() -> None:
    world = World()
    tx_id = world.enqueue("a")
    world.sender().pump(KEY.address)
    world.pass_over()
    world.now -= 2
    world.sender().pump(KEY.address)
    assert world.versions(tx_id) == 1
    world.now += 1
    world.sender().pump(KEY.address)
    assert world.versions(tx_id) == 2


def test_what_a_halted_chain_lost_is_sent_again_at_the_same_price() -> None:
    world = World()
    tx_id = world.enqueue("a")
    world.sender().pump(KEY.address)
    before = world.journal.get(tx_id).raw
    world.chain.forget_pool()
    world.now += 600
    world.sender().pump(KEY.address)
    assert (world.versions(tx_id), world.journal.get(tx_id).raw) == (1, before)
    world.chain.mine()
    assert world.effects() == ["a"]


def test_blocks_are_counted_anew_for_what_a_reorg_took() -> None:
    """The chain halts after the reorg: blocks from before it say nothing of the price now."""
    world = World()
    tx_id = world.enqueue("a")
    world.sender().pump(KEY.address)
    world.chain.mine()
    world.sender().pump(KEY.address)
    world.chain.reorg(1, length=2)
    world.sender().pump(KEY.address)
    assert (world.journal.get(tx_id).state, world.journal.get(tx_id).sent_head) == ("sent", 2)
    world.now += 600
    world.sender().pump(KEY.address)
    assert world.versions(tx_id) == 1
    world.pass_over()
    world.sender().pump(KEY.address)
    assert world.versions(tx_id) == 2


def test_endpoints_that_lag_behind_each_other_are_no_new_blocks() -> None:
    world = World()
    world.chain.mine(5)
    lagging = Stuck(world.chain)
    world.chain.mine()
    tx_id = world.enqueue("a")
    world.sender().pump(KEY.address)
    for _ in range(5):
        world.now += 60
        world.sender(chain=lagging).pump(KEY.address)
        world.now += 60
        world.sender().pump(KEY.address)
    assert world.versions(tx_id) == 1


def test_an_older_version_that_is_mined_counts() -> None:
    world = World()
    tx_id = world.enqueue("a")
    world.sender().pump(KEY.address)
    first = world.journal.get(tx_id)
    world.pass_over()
    world.sender().pump(KEY.address)
    assert world.journal.get(tx_id).tx_hash != first.tx_hash
    world.chain.forget_pool()
    assert first.raw is not None
    world.chain.send_raw(first.raw)
    world.chain.mine()
    world.settle()
    assert world.effects() == ["a"]
    assert world.journal.get(tx_id).tx_hash == first.tx_hash


def test_a_foreign_transaction_takes_our_nonce() -> None:
    world = World()
    tx_id = world.enqueue("a")
    world.sender().pump(KEY.address)
    world.chain.send_raw(foreign(0))
    world.chain.mine()
    world.sender().pump(KEY.address)
    assert world.journal.get(tx_id).nonce == 0
    world.now += 31
    world.settle()
    assert world.effects() == ["a"]
    assert world.journal.get(tx_id).nonce == 1


def test_a_gap_below_is_filled() -> None:
    """A foreign transaction took nonce 0, ours took 1; the reorg loses the foreign one and nobody sends it again."""
    world = World()
    world.chain.send_raw(foreign(0))
    world.chain.mine()
    world.enqueue("a")
    world.sender().pump(KEY.address)
    world.chain.mine()
    world.sender().pump(KEY.address)
    world.chain.reorg(2)
    world.settle()
    assert world.effects() == ["a"]
    assert not world.journal.open(KEY.address)


def test_a_revert_is_an_error_and_not_a_mined_failure() -> None:
    world = World()
    world.reverting.add(b"a")
    tx_id = world.enqueue("a")
    world.enqueue("b")
    world.settle()
    assert world.journal.get(tx_id).state == "failed"
    assert world.journal.get(tx_id).nonce is None
    assert "Nope" in world.journal.errors["a"]
    assert world.effects() == ["b"]


def test_a_mined_revert_fails_and_blocks_nobody() -> None:
    world = World()
    tx_id = world.enqueue("a")
    world.sender().pump(KEY.address)
    world.reverting.add(b"a")
    world.chain.mine()
    world.sender().pump(KEY.address)
    assert world.journal.get(tx_id).state == "reverted"
    assert "Nope" in world.journal.errors["a"]
    world.enqueue("b")
    world.settle()
    assert world.journal.get(tx_id).state == "failed"
    assert world.effects() == ["b"]


@pytest.mark.parametrize("first", ["reverted", "mined"])
def test_a_reorg_turns_an_outcome_round(first: str) -> None:
    """Neither outcome is definitive before its block is final; the same bytes decide again."""
    world = World()
    tx_id = world.enqueue("a")
    world.sender().pump(KEY.address)
    before = world.journal.get(tx_id).raw
    change = (world.reverting.add, world.reverting.discard)[:: 1 if first == "reverted" else -1]
    change[0](b"a")
    world.chain.mine(2)
    world.sender().pump(KEY.address)
    assert world.journal.get(tx_id).state == first
    change[1](b"a")
    world.chain.reorg(2)
    world.sender().pump(KEY.address)
    assert world.journal.get(tx_id).state == "sent"
    world.settle()
    row = world.journal.get(tx_id)
    assert (row.state, row.raw) == ("final" if first == "reverted" else "failed", before)
    assert world.effects() == (["a"] if first == "reverted" else [])
    turned = ["tx.sent", f"tx.{first}", "tx.dropped", "tx.sent"]
    assert [topic for topic, _ in world.journal.events][:4] == turned


class Stuck(MemoryChain):
    """An endpoint whose account of transactions stands still: it hears of no block after the ``other`` chain's."""

    def __init__(self, other: MemoryChain) -> None:
        super().__init__()
        self.other, self.stale = other, other.fork()

    def __getattribute__(self, name: str) -> Any:
        own = object.__getattribute__(self, "__dict__")
        if name in ("other", "stale"):
            return own[name]
        return getattr(own["stale"] if name == "standing" else own["other"], name)


def test_an_endpoint_on_another_fork_concludes_nothing() -> None:
    """Its receipts are of blocks that were reorganised away, while another endpoint says what is final by now."""
    world = World()
    tx_id = world.enqueue("a")
    world.sender().pump(KEY.address)
    world.chain.mine(2)
    stuck = Stuck(world.chain)
    world.chain.reorg(2)
    world.reverting.add(b"a")
    world.sender().pump(KEY.address)
    world.chain.mine(4)
    world.sender(chain=stuck).pump(KEY.address)
    assert world.journal.get(tx_id).state == "mined", "that is what it says, but not for good"
    world.sender().pump(KEY.address)
    assert world.journal.get(tx_id).state == "failed"


def test_only_the_next_in_line_is_raised_above_the_market() -> None:
    world = World()
    ids = [world.enqueue(name) for name in "abc"]
    world.sender().pump(KEY.address)
    world.pass_over()
    world.sender().pump(KEY.address)
    assert [len(world.journal.get(tx_id).offers) for tx_id in ids] == [2, 1, 1]
    world.chain.base_fee *= 3
    world.pass_over()
    world.sender().pump(KEY.address)
    assert [len(world.journal.get(tx_id).offers) for tx_id in ids] == [3, 2, 2]


def test_the_same_job_goes_in_order() -> None:
    world = World()
    world.enqueue("open", job_id="0x01")
    second = world.enqueue("close", job_id="0x01")
    world.enqueue("other", job_id="0x02")
    world.sender().pump(KEY.address)
    assert world.journal.get(second).raw is None
    world.settle()
    assert world.effects() == ["open", "other", "close"]


def test_only_one_sender_per_key() -> None:
    world = World()
    world.enqueue("a")
    with world.journal.hold(KEY.address):
        assert world.sender().pump(KEY.address).busy
    assert world.effects() == []


def test_an_unknown_key_is_refused() -> None:
    with pytest.raises(KeyRefused):
        World().sender().pump("0x" + "00" * 20)
