"""One seeded reorg scenario: a simulated chain that reorganises, an RPC that lags and lies, an indexer that is killed.

At the end the mirror must equal the fold of the canonical chain, computed in memory without database and follower.
"""

import random
from collections.abc import Sequence
from typing import Any

from sqlalchemy import text

from everlease.chain._generated import events as ev
from everlease.chain._generated.enums import CreditReason
from everlease.chain.base import BlockTag, Header, Log
from everlease.chain.deployment import Deployment
from everlease.chain.errors import RpcUnavailable, TooManyResults
from everlease.chain.memory import MemoryChain
from everlease.db import Database, mirror
from everlease.db.derived import TABLES
from everlease.db.models import mirror as rows
from indexer.decoding import decode
from indexer.follower import Follower, Step
from indexer.reducers import reduce
from indexer.source import EVENTS_PER_STEP, mirrored
from indexer.workspace import Workspace
from tests.support.deployed import TERMS
from tests.support.events import as_log
from tests.support.executors import Immediate
from tests.support.mirrors import DERIVED, Dump, columns, count, dump, held, told

ESCROW, STAKING = "0x" + "e5" * 20, "0x" + "57" * 20
DEPLOYMENT = Deployment(31337, ESCROW, STAKING, "0x" + "a5" * 20, 1, TERMS)
_DEPTHS = (0, 1, 1, 1, 2, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64, 128, 256)


class Crash(Exception):
    """The process dies here."""


class Faulty:
    """An RPC in front of ``chain`` that throttles, times out, lags, leaves logs of ranges out, repeats and shuffles.

    By block hash it answers "none" wrongly once at most in a row: a node that never gives a block's logs can't be told
    from an empty block without the receipts themselves.
    """

    def __init__(self, chain: MemoryChain, chance: random.Random, rate: float) -> None:
        self._chain = chain
        self._chance = chance
        self._behind: MemoryChain | None = None
        self._withheld = ""
        self.rate = rate

    def _fail(self, method: str) -> None:
        if self._chance.random() < self.rate:
            raise RpcUnavailable(method, self._chance.choice(["HTTP 429", "timed out", "an answer is missing"]))

    def chain_id(self) -> int:
        self._fail("eth_chainId")
        return self._chain.chain_id()

    def header(self, block: BlockTag) -> Header | None:
        self._fail("eth_getBlockByNumber")
        if block == "latest" and self._chance.random() < self.rate:
            head = self._chain.header("latest")
            assert head is not None
            return self._chain.header(max(0, head.number - self._chance.randrange(1, 9)))
        return self._chain.header(block)

    def headers(self, numbers: Sequence[int]) -> list[Header | None]:
        self._fail("eth_getBlockByNumber")
        answer = self._chain.headers(numbers)
        if answer and self._chance.random() < self.rate:
            answer[-1] = None
        return answer

    def logs(self, addresses: Sequence[str], first: int, last: int) -> list[Log]:
        self._fail("eth_getLogs")
        if last > first and self._chance.random() < self.rate:
            raise TooManyResults("eth_getLogs", -32005, "more than we like")
        answer = self._chain.logs(addresses, first, last)
        fault = self._chance.random()
        if fault < self.rate:
            known = self._chance.randrange(first, last + 2)
            answer = [log for log in answer if log.block_number < known]
        elif fault < 2 * self.rate:
            answer = answer + answer
            self._chance.shuffle(answer)
        return answer

    def logs_of(self, addresses: Sequence[str], block_hash: str) -> list[Log]:
        self._fail("eth_getLogs")
        answer = self._chain.logs_of(addresses, block_hash)
        if self._withheld != block_hash and self._chance.random() < self.rate:
            self._withheld = block_hash
            return []
        if self._chance.random() < self.rate:
            answer = answer[::-1] + answer
        return answer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._chain, name)


class Scenario:
    """``run`` plays it and raises AssertionError where the mirror is wrong; ``tally`` says what it went through."""

    def __init__(self, seed: int, database: Database) -> None:
        self._chance = random.Random(seed)
        self._database = database
        self._depth = self._chance.choice(_DEPTHS)
        finality = self._depth + self._chance.randrange(1, 12)
        self._chain = MemoryChain(finality=finality)
        self._final = 0
        self._rate = self._chance.choice([0.0, 0.02, 0.1])
        self._rpc = Faulty(self._chain, self._chance, self._rate)
        self._ahead, self._enough = self._chance.random() < 0.7, self._chance.choice([1, 3, 10, EVENTS_PER_STEP])
        self._follower = self._started()
        self._taken: list[list[tuple[str, tuple[str, ...], bytes]]] = []
        self.tally = {"reorgs": 0, "deepest": 0, "nested": 0, "crashes": 0, "refusals": 0, "restarts": 0, "blocks": 0}

    def run(self) -> None:
        """Grow, reorganise, crash, restart; then the checks."""
        chance = self._chance
        _forget(self._database)
        self._grow(chance.randrange(3, 12))
        if self._depth:
            self._grow(self._depth)
        for _ in range(chance.randrange(2, 5)):
            self._steps(chance.randrange(6))
            self._reorganise(self._depth)
            while chance.random() < 0.4:
                self.tally["nested"] += 1
                self._steps(chance.randrange(3))
                self._reorganise(chance.randint(0, self._depth))
            self._grow(chance.randrange(4))
            if chance.random() < 0.3:
                self._follower = self._started()
                self.tally["restarts"] += 1
        self._settle()
        self._check()

    def _started(self) -> Follower:
        executor = Immediate() if self._ahead else None
        return Follower(self._rpc, DEPLOYMENT, self._database, executor=executor, events_per_step=self._enough)

    def _grow(self, blocks: int) -> None:
        for _ in range(blocks):
            if self._chance.random() < (0.5 if self._depth < 32 else 0.1):
                for _ in range(self._chance.randrange(1, 4)):
                    self._chain.emit(*self._event())
            self._chain.mine()
        self.tally["blocks"] += blocks

    def _event(self) -> tuple[str, tuple[str, ...], bytes]:
        """An event that needs nothing before it; or one that was reorganised away, mined again."""
        chance = self._chance
        if self._taken and chance.random() < 0.4:
            return chance.choice(chance.choice(self._taken))
        who, amount = _address(chance.randrange(1, 6)), chance.randrange(1, 10**9)
        job = "0x" + chance.randbytes(32).hex()
        where, event = chance.choice(
            [
                (STAKING, ev.ProviderStaked(who, amount, amount)),
                (STAKING, ev.StakeSlashed(who, 1, amount)),
                (STAKING, ev.NodeAuthorised(who, _address(chance.randrange(10, 15)), amount)),
                (STAKING, ev.NodeRevoked(who, _address(chance.randrange(10, 15)))),
                (STAKING, ev.MetadataSet(who, f"b{amount}")),
                (ESCROW, ev.Credited(who, amount, CreditReason.REFUND)),
                (ESCROW, ev.JobFunded(job, who, who, job, 1, amount, 1, 5, 3, 1, 2**40, 2**255)),
            ]
        )
        return as_log(where, event)

    def _reorganise(self, depth: int) -> None:
        head = self._chain.header("latest")
        assert head is not None
        final = self._chain.header("finalized")
        assert final is not None
        self._final = max(self._final, final.number)
        depth = min(depth, head.number - max(1, self._final))
        if depth < 1:
            return
        gone = self._chain.logs([ESCROW, STAKING], head.number - depth + 1, head.number)
        if gone:
            self._taken.append([(log.address, log.topics, log.data) for log in gone])
        self._chain.reorg(depth, length=max(0, depth - self._chance.randrange(2)))
        self._grow(self._chance.randrange(3))
        self.tally["reorgs"] += 1
        self.tally["deepest"] = max(self.tally["deepest"], depth)

    def _steps(self, count: int) -> None:
        for _ in range(count):
            try:
                with _dying(self._chance, 0.15 if self._rate else 0.05):
                    self._follower.step()
            except Crash:
                self.tally["crashes"] += 1
                self._follower = self._started()
            except Exception as error:
                if not getattr(error, "retryable", False):
                    raise
                self.tally["refusals"] += 1

    def _settle(self) -> None:
        """The chain grows past what the mirror saw; half of the faults go on while it catches up."""
        self._chain.mine(2)
        self._rpc.rate = self._rate / 2
        idle = 0
        for _ in range(3000):
            try:
                step = self._follower.step()
            except Exception as error:
                if not getattr(error, "retryable", False):
                    raise
                self.tally["refusals"] += 1
                continue
            assert step is not Step.HALTED, _halted(self._database)
            idle = idle + 1 if step is Step.IDLE and self._at_head() else 0
            if idle:
                return
        raise AssertionError("the mirror did not catch up in 3000 steps")

    def _at_head(self) -> bool:
        head = self._chain.header("latest")
        with self._database.transaction() as tx:
            row = mirror.cursor(tx)
            return row is not None and head is not None and row.block_hash == head.hash

    def _check(self) -> None:
        assert dump(self._database) == fold(self._chain)
        assert told(self._database) == held(self._database)


def fold(chain: MemoryChain) -> Dump:
    """The canonical chain's events reduced in memory, in the form of ``dump``."""
    logs = chain.logs([ESCROW, STAKING], 0, 10**6)
    headers = {log.block_number: chain.header(log.block_number) for log in logs}
    decoded = decode(logs, {number: mirrored(header) for number, header in headers.items() if header is not None})
    space = Workspace(lambda table, keys: {})
    for at, event in decoded:
        reduce(space, at, event)
    found: Dump = {kind.__tablename__: [] for kind in DERIVED}
    for change in space.changes:
        assert not change.replaced
        places = [change.columns.index(column.name) for column in TABLES[change.table].__table__.columns]
        found[change.table] += [tuple(row[place] for place in places) for row in change.rows]
    for at, _ in decoded:
        values = [getattr(at, name) for name in columns(rows.EventRow)]
        found["idx_event"].append(tuple(list(value) if isinstance(value, tuple) else value for value in values))
    for kind in DERIVED:
        keys = [list(kind.__table__.columns).index(column) for column in kind.__table__.primary_key]
        found[kind.__tablename__].sort(key=lambda row: tuple(row[key] for key in keys))
    return found | {"totals": count(found)}


class _dying:
    """While inside, each durable step of everlease.db.mirror may be the process's last, before or after it ran."""

    def __init__(self, chance: random.Random, rate: float) -> None:
        self._chance, self._rate = chance, rate
        self._real: dict[str, Any] = {}

    def __enter__(self) -> None:
        if self._chance.random() >= self._rate:
            return
        name = self._chance.choice(["lock", "apply", "advance", "roll_back", "observe", "start"])
        self._real[name] = getattr(mirror, name)
        after = self._chance.random() < 0.5

        def last(*arguments: Any, **named: Any) -> Any:
            if after:
                self._real[name](*arguments, **named)
            raise Crash(name)

        setattr(mirror, name, last)

    def __exit__(self, *_: object) -> None:
        for name, real in self._real.items():
            setattr(mirror, name, real)


def _forget(database: Database) -> None:
    """Empty what a scenario writes: much cheaper than a database each."""
    with database.transaction() as tx:
        mirror.clear(tx)
        tx.execute(text("DELETE FROM outbox"))


def _halted(database: Database) -> str:
    with database.transaction() as tx:
        row = mirror.cursor(tx)
        return row.halted if row is not None else ""


def _address(number: int) -> str:
    return "0x" + f"{number:040x}"
