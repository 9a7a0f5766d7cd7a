"""The indexer on a simulated chain and real PostgreSQL: random histories with reorgs equal a mirror built anew."""

import random
from collections.abc import Sequence

import pytest

from everlease.chain._generated import events as ev
from everlease.chain._generated.enums import CreditReason
from everlease.chain.base import BlockTag, Header, Log
from everlease.chain.deployment import Deployment
from everlease.chain.errors import RpcUnavailable
from everlease.chain.memory import MemoryChain
from everlease.db import Database, derived, mirror
from everlease.domain.mirrored import MirroredBlock
from indexer.follower import Follower, Step, WrongMirror
from indexer.source import Inconsistent
from tests.support.deployed import TERMS
from tests.support.events import as_log
from tests.support.mirrors import dump, held, told

ESCROW, STAKING = "0x" + "e5" * 20, "0x" + "57" * 20
DEPLOYMENT = Deployment(31337, ESCROW, STAKING, "0x" + "a5" * 20, 1, TERMS)


def address(number: int) -> str:
    return "0x" + f"{number:040x}"


def random_event(chance: random.Random) -> tuple[str, ev.Event]:
    """An event that needs nothing before it."""
    who, amount = address(chance.randrange(1, 6)), chance.randrange(1, 10**9)
    job = "0x" + chance.randbytes(32).hex()
    return chance.choice(
        [
            (STAKING, ev.ProviderStaked(who, amount, amount)),
            (STAKING, ev.StakeSlashed(who, 1, amount)),
            (STAKING, ev.NodeAuthorised(who, address(chance.randrange(10, 15)), amount)),
            (STAKING, ev.NodeRevoked(who, address(chance.randrange(10, 15)))),
            (STAKING, ev.MetadataSet(who, f"b{amount}")),
            (ESCROW, ev.Credited(who, amount, CreditReason.REFUND)),
            (ESCROW, ev.JobFunded(job, who, who, job, 1, amount, 1, 5, 3, 1, 2**40, 2**255)),
        ]
    )


def follower(chain: MemoryChain, database: Database) -> Follower:
    return Follower(chain, DEPLOYMENT, database)


@pytest.mark.parametrize("seed", range(4))
def test_random_histories(seed: int, database: Database, fresh: Database) -> None:
    chance = random.Random(seed)
    chain = MemoryChain(finality=5)
    chain.mine(6)
    ours = follower(chain, database)
    for _ in range(60):
        for _ in range(chance.randrange(3)):
            where, event = random_event(chance)
            chain.emit(*as_log(where, event))
        chain.mine(chance.randrange(1, 3))
        if chance.random() < 0.3:
            ours.catch_up()
            chain.reorg(chance.randrange(1, 5), length=chance.randrange(4, 7))
        for _ in range(chance.randrange(4)):
            ours.step()
    assert ours.catch_up() is Step.IDLE
    assert follower(chain, fresh).catch_up() is Step.IDLE
    assert dump(database) == dump(fresh)
    assert told(database) == held(database)


class Crash(Exception):
    """The process dies here."""


@pytest.mark.parametrize("name", ["lock", "load", "apply", "advance", "roll_back", "start", "observe"])
@pytest.mark.parametrize("after", [False, True])
def test_killed_around_each_durable_step(
    name: str, after: bool, database: Database, fresh: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(name)
    chain = MemoryChain(finality=5)
    module = derived if name == "load" else mirror
    real = getattr(module, name)

    def dying(*arguments: object, **named: object) -> object:
        result = real(*arguments, **named) if after else None
        if chance.random() < 0.4:
            raise Crash
        return result if after else real(*arguments, **named)

    monkeypatch.setattr(module, name, dying)
    for _ in range(25):
        where, event = random_event(chance)
        chain.emit(*as_log(where, event))
        chain.mine(2)
        for _ in range(4):
            try:
                follower(chain, database).step()
            except Crash:
                continue
        if chance.random() < 0.3:
            chain.reorg(2)
    monkeypatch.undo()
    assert follower(chain, database).catch_up() is Step.IDLE
    follower(chain, fresh).catch_up()
    assert dump(database) == dump(fresh)


def test_beyond_finality_it_halts_and_says_how_to_go_on(database: Database, fresh: Database) -> None:
    chain = MemoryChain(finality=3)
    for number in range(20):
        chain.emit(*as_log(STAKING, ev.ProviderStaked(address(1), number, number)))
        chain.mine()
    ours = follower(chain, database)
    ours.catch_up()
    before = dump(database)
    chain.reorg(8)
    assert ours.catch_up() is Step.HALTED
    assert dump(database) == before
    with database.transaction() as tx:
        row = mirror.cursor(tx)
        assert row is not None
        assert "rebuild" in row.halted
    assert follower(chain, database).step() is Step.HALTED
    with database.transaction() as tx:
        mirror.clear(tx)
    assert follower(chain, database).catch_up() is Step.IDLE
    follower(chain, fresh).catch_up()
    assert dump(database) == dump(fresh)


def test_large_answers_halve_the_range(database: Database) -> None:
    chain = MemoryChain(finality=0)
    chain.max_logs = 7
    for number in range(60):
        chain.emit(*as_log(STAKING, ev.ProviderStaked(address(number), 1, 1)))
        chain.mine()
    assert follower(chain, database).catch_up() is Step.IDLE
    assert len(dump(database)["provider"]) == 60


def test_two_indexers_at_once(database: Database, fresh: Database) -> None:
    chain = MemoryChain(finality=3)
    chance = random.Random(1)
    first, second = follower(chain, database), follower(chain, database)
    for _ in range(30):
        chain.emit(*as_log(*random_event(chance)))
        chain.mine()
        for ours in (first, second):
            try:
                ours.step()
            except mirror.CursorMoved:
                continue
    with database.transaction() as tx, pytest.raises(mirror.CursorMoved):
        mirror.lock(tx, 3, "0x" + "00" * 32)
    first.catch_up()
    follower(chain, fresh).catch_up()
    assert dump(database) == dump(fresh)


def test_a_lagging_endpoint_is_no_reorg(database: Database) -> None:
    chain = MemoryChain(finality=3)
    chain.mine(10)
    follower(chain, database).catch_up()
    lagging = MemoryChain(finality=3)
    lagging.mine(6)
    assert follower(lagging, database).step() is Step.IDLE
    with database.transaction() as tx:
        row = mirror.cursor(tx)
        assert row is not None
        assert row.block_number == 10


class Mixed(MemoryChain):
    """An endpoint whose logs come from another node than its headers."""

    def logs(self, addresses: object, first: int, last: int) -> list[Log]:
        return [Log(STAKING, ("0x" + "00" * 32,), b"", first, "0x" + "ff" * 32, "0x" + "00" * 32, 0)]


def test_mixed_answers_are_not_believed(database: Database) -> None:
    chain = Mixed(finality=0)
    chain.mine(5)
    ours = follower(chain, database)
    ours.step()
    with pytest.raises(Inconsistent):
        ours.step()
    with database.transaction() as tx:
        row = mirror.cursor(tx)
        assert row is not None
        assert row.block_number == 0


class Forgetful(MemoryChain):
    """After a reorg, an endpoint that has lost its blocks by the time it is asked for many."""

    forgets = False

    def headers(self, numbers: Sequence[int]) -> list[Header | None]:
        return [None if self.forgets and number else self.header(number) for number in numbers]

    def header(self, block: BlockTag) -> Header | None:
        return None if self.forgets and block == 17 else super().header(block)


def test_blocks_that_an_endpoint_lost_are_no_reason_to_halt(database: Database) -> None:
    chain = Forgetful(finality=3)
    ours = follower(chain, database)
    chain.mine(20)
    ours.catch_up()
    chain.reorg(2)
    chain.forgets = True
    with pytest.raises(Inconsistent, match="block 17 was final"):
        ours.step()
    chain.forgets = False
    assert ours.catch_up() is Step.IDLE


class Dead(MemoryChain):
    def header(self, block: object) -> None:
        raise RpcUnavailable("eth_getBlockByNumber", "down")


def test_a_dead_endpoint_changes_nothing(database: Database) -> None:
    with pytest.raises(RpcUnavailable):
        follower(Dead(), database).step()
    assert dump(database)["idx_event"] == []


def test_another_deployments_database_is_refused(database: Database) -> None:
    chain = MemoryChain()
    chain.mine()
    follower(chain, database).catch_up()
    other = Deployment(31337, "0x" + "01" * 20, STAKING, "0x" + "a5" * 20, 1, TERMS)
    with pytest.raises(WrongMirror):
        Follower(chain, other, database).step()


def test_a_lease_that_was_never_opened_halts(database: Database) -> None:
    chain = MemoryChain(finality=2)
    chain.mine(2)
    chain.emit(*as_log(ESCROW, ev.LeaseClosed("0x" + "01" * 32, "0x" + "02" * 32, address(1))))
    chain.mine()
    assert follower(chain, database).catch_up() is Step.HALTED
    assert dump(database)["idx_event"] == []


def test_undo_rows_go_with_finality(database: Database) -> None:
    from sqlalchemy import func, select

    from everlease.db.models.mirror import BlockRow, UndoRow

    chain = MemoryChain(finality=3)
    ours = follower(chain, database)
    for number in range(30):
        chain.emit(*as_log(STAKING, ev.ProviderStaked(address(number % 3), number, number)))
        chain.mine(2)
        ours.catch_up()
    with database.transaction() as tx:
        assert (tx.scalar(select(func.count()).select_from(UndoRow)) or 0) <= 4
        empty = tx.scalars(select(BlockRow.number).where(BlockRow.events == 0).order_by(BlockRow.number)).all()
        assert empty == [58, 60]
        assert mirror.blocks_down_from(tx, 60, 1) == [MirroredBlock(60, *_header(chain, 60))]


def _header(chain: MemoryChain, number: int) -> tuple[str, str, int]:
    header = chain.header(number)
    assert header is not None
    return header.hash, header.parent_hash, header.timestamp


class Lagging(MemoryChain):
    """Headers come from one node, logs of a range from another that has only ``known`` blocks: no logs, no error."""

    known = 0

    def logs(self, addresses: Sequence[str], first: int, last: int) -> list[Log]:
        return super().logs(addresses, first, min(last, self.known))


def test_logs_that_a_lagging_node_leaves_out_are_asked_for(database: Database) -> None:
    chain = Lagging(finality=0)
    for number in range(40):
        chain.emit(*as_log(STAKING, ev.ProviderStaked(address(number), 1, 1)))
        chain.mine(2)
    chain.known = 30
    assert follower(chain, database).catch_up() is Step.IDLE
    assert len(dump(database)["provider"]) == 40


@pytest.mark.parametrize("length", [2, 30, 60])
def test_another_chain_under_the_same_database_halts_it(length: int, database: Database) -> None:
    chain, other = MemoryChain(finality=3), MemoryChain(finality=3, genesis="0x" + "0f" * 32)
    chain.mine(30)
    ours = follower(chain, database)
    assert ours.catch_up() is Step.IDLE
    other.mine(length)
    ours._chain = ours._reader._source._chain = other
    assert ours.catch_up() is Step.HALTED
    with database.transaction() as tx:
        row = mirror.cursor(tx)
        assert row is not None
        assert "another chain" in row.halted
        mirror.resume(tx)
    assert follower(other, database).catch_up() is Step.HALTED
    with database.transaction() as tx:
        mirror.resume(tx)
    assert follower(chain, database).catch_up() is Step.IDLE
