"""Totals equal counts: after any rows were written, replaced, rolled back, cleared and written again."""

import random
from typing import Any, get_args

import pytest

from everlease.chain._generated import events as ev
from everlease.chain.deployment import Deployment
from everlease.chain.memory import MemoryChain
from everlease.db import Database, derived, mirror, totals
from everlease.domain.lease import LeaseState
from everlease.domain.mirrored import MirroredBlock
from indexer.follower import Follower, Step
from indexer.records import KINDS, Record
from indexer.workspace import Workspace
from tests.support.deployed import TERMS
from tests.support.events import as_log
from tests.support.mirrors import count, dump

KEYS = {"lease": "lease_id", "escrow": "job_id", "provider": "provider", "node_auth": "node", "claimable": "account"}


def block(number: int) -> MirroredBlock:
    return MirroredBlock(number, f"0x{number:064x}", f"0x{number - 1:064x}", number)


def random_record(chance: random.Random) -> Record:
    """Any row of a counted table; few keys, so that most replace an older one."""
    table, key = chance.choice(list(KEYS.items()))
    kind = KINDS[table]
    values: dict[str, Any] = {}
    for name, type_ in kind.__annotations__.items():
        if name == key:
            values[name] = f"0x{chance.randrange(9):040x}"
        elif name == "state":
            values[name] = chance.choice([state.value for state in LeaseState if state is not LeaseState.NONE])
        elif type_ is bool:
            values[name] = chance.random() < 0.5
        elif type_ is int:
            values[name] = chance.choice([0, 1, chance.randrange(10**6)])
        elif type_ is str or type(None) in get_args(type_):
            values[name] = f"0x{chance.getrandbits(64):x}"
    return kind(**values)


def write(database: Database, chance: random.Random, first: int, last: int, *, final: bool) -> None:
    """Blocks with random rows in one step."""
    with database.transaction() as tx:
        cursor = mirror.lock(tx, first - 1, block(first - 1).hash)
        rows = Workspace(lambda table, keys: derived.load(tx, table, keys))
        for number in range(first, last + 1):
            if not final:
                rows.begin(number)
            for _ in range(chance.randrange(6)):
                rows.put(random_record(chance))
        blocks = [block(number) for number in range(first, last + 1)]
        mirror.apply(tx, blocks, [], [], rows.changes, rows.images)
        mirror.advance(tx, cursor, blocks[-1], head=last, final=last if final else 0)


@pytest.mark.parametrize("seed", range(5))
def test_totals_equal_counts(seed: int, database: Database) -> None:
    chance = random.Random(seed)
    for _ in range(2):
        with database.transaction() as tx:
            mirror.start(tx, 1, "0x", "0x", "0x", block(0))
        write(database, chance, 1, 5, final=True)
        head, most = 5, 0
        for _ in range(25):
            if head > 6 and chance.random() < 0.4:
                ancestor = chance.randrange(5, head)
                with database.transaction() as tx:
                    mirror.roll_back(tx, mirror.lock(tx, head, block(head).hash), block(ancestor))
                head = ancestor
            else:
                last = head + chance.randrange(1, 4)
                write(database, chance, head + 1, last, final=False)
                head = last
            dumped = dump(database)
            assert dumped["totals"] == count(dumped)
            most = max(most, dict(dumped["totals"])["jobs"])
        assert most > 0
        with database.transaction() as tx:
            mirror.clear(tx)
            assert not any(totals.read(tx).values())


def test_leases_that_were_reorganised_away(database: Database) -> None:
    """A job's whole life through the follower: opened, collected, closed, taken back, opened again."""
    escrow, staking = "0x" + "e5" * 20, "0x" + "57" * 20
    chain = MemoryChain(finality=10)
    deployment = Deployment(31337, escrow, staking, "0x" + "a5" * 20, 1, TERMS)
    ours = Follower(chain, deployment, database)
    who, job, lease = "0x" + "77" * 20, "0x" + "0a" * 32, "0x" + "1e" * 32

    def happens(event: ev.Event) -> dict[str, int]:
        chain.emit(*as_log(escrow, event))
        chain.mine()
        return now()

    def now() -> dict[str, int]:
        assert ours.catch_up() is Step.IDLE
        dumped = dump(database)
        assert dumped["totals"] == count(dumped)
        return dict(dumped["totals"])

    opened = ev.LeaseOpened(job, lease, who, who, 1, 1000, 50, 100, 10, 1, 4000, 9000, 9060, 1)
    funded = happens(ev.JobFunded(job, who, who, job, 1, 500, 1, 5, 3, 1, 2**40, 2**255))
    assert (funded["jobs"], funded["escrowed"], funded["deposited"]) == (1, 500, 500)
    assert (happens(opened)["leases_active"], now()["reserved"]) == (1, 110)
    assert happens(ev.LeaseCollected(job, lease, 10, 4010, 1, 20, 1, 80, "0x" + "00" * 32))["paid"] == 20
    closed = happens(ev.LeaseClosed(job, lease, who))
    assert (closed["leases_active"], closed["leases_closed"], closed["reserved"]) == (0, 1, 0)
    chain.reorg(3)
    assert now() == funded
    assert happens(opened)["leases_active"] == 1
