"""Follows the chain one durable step at a time. A step reads the chain, then writes everything in one transaction, so a
kill at any point loses and doubles nothing: the next step starts from the cursor.

Steps: back-fill final ranges → apply live blocks, each undoable by itself → on a parent hash that doesn't fit, roll
back to the common ancestor. Beyond finality it halts and says how to go on.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from enum import StrEnum

import structlog

from everlease.chain.base import ChainReader
from everlease.chain.deployment import Deployment
from everlease.chain.errors import BadAnswer
from everlease.db import Database, derived, mirror
from everlease.domain.mirrored import MirroredBlock, MirroredEvent
from indexer.decoding import touched
from indexer.read_ahead import Decoded, ReadAhead
from indexer.records import Lease
from indexer.reducers import reduce
from indexer.source import EVENTS_PER_STEP, Inconsistent, Source, mirrored
from indexer.workspace import Contradiction, Workspace

_log = structlog.get_logger("indexer")

LIVE_BLOCKS_PER_STEP = 32
_ANCESTOR_PAGE = 64
_RESUME = "run `python -m indexer resume` and start it again"
_REBUILD = "stop the indexer, run `python -m indexer rebuild`, start it again"


class Step(StrEnum):
    """What a step did; IDLE means that there is nothing to do until the next block."""

    STARTED = "started"
    BACKFILLED = "backfilled"
    APPLIED = "applied"
    ROLLED_BACK = "rolled_back"
    IDLE = "idle"
    HALTED = "halted"


@dataclass(frozen=True, slots=True)
class _Position:
    number: int
    hash: str
    final: int
    genesis: str
    halted: str


@dataclass(frozen=True, slots=True)
class _Chain:
    head: int
    final: int


class WrongMirror(Exception):
    """The database mirrors another deployment."""

    retryable = False


class Follower:
    """Mirrors one deployment. ``finality_depth`` is used where the chain has no finalized tag; ``executor`` reads the
    next final range while the present one is written (without one, the next step reads it)."""

    def __init__(
        self,
        chain: ChainReader,
        deployment: Deployment,
        database: Database,
        *,
        finality_depth: int = 64,
        executor: Executor | None = None,
        events_per_step: int = EVENTS_PER_STEP,
        on_step: Callable[[Step, int], None] = lambda step, count: None,
    ) -> None:
        self._chain = chain
        self._deployment = deployment
        self._database = database
        self._depth = finality_depth
        self._on_step = on_step
        source = Source(chain, (deployment.escrow, deployment.staking), events_per_step=events_per_step)
        self._reader = ReadAhead(source, executor)
        self._known_chain = False

    def catch_up(self) -> Step:
        """Step until there is nothing to do; returns IDLE or HALTED."""
        while True:
            step = self.step()
            if step in (Step.IDLE, Step.HALTED):
                return step

    def step(self) -> Step:
        """One durable step. Raises RpcUnavailable, BadAnswer, Inconsistent, DatabaseUnavailable, CursorMoved: all
        retryable, nothing was written."""
        position = self._position()
        if position is None:
            return self._start()
        if position.halted:
            return Step.HALTED
        if not self._known_chain and (stranger := self._stranger(position)):
            return self._halt(stranger)
        self._known_chain = True
        chain = self._look()
        ours = self._chain.header(position.number) if position.number <= chain.head else None
        if ours is None:
            return self._behind(position, chain)
        if ours.hash != position.hash:
            return self._reorganise(position)
        if position.number >= chain.head:
            with self._database.transaction() as tx:
                row = mirror.lock(tx, position.number, position.hash)
                mirror.observe(tx, row, head=chain.head, final=chain.final)
            return Step.IDLE
        return self._advance(position, chain)

    def _position(self) -> _Position | None:
        with self._database.transaction() as tx:
            row = mirror.cursor(tx)
            if row is None:
                return None
            if (row.chain_id, row.escrow) != (self._deployment.chain_id, self._deployment.escrow):
                raise WrongMirror(
                    f"this database mirrors {row.escrow} on chain {row.chain_id}: use another database, or {_REBUILD}"
                )
            return _Position(row.block_number, row.block_hash, row.final_number, row.genesis_hash, row.halted)

    def _start(self) -> Step:
        self._deployment.check_chain(self._chain)
        genesis, header = self._chain.headers([0, max(0, self._deployment.block - 1)])
        if genesis is None or header is None:
            raise BadAnswer(f"the chain has no block {self._deployment.block - 1}, before which the contracts lie")
        at = self._deployment
        with self._database.transaction() as tx:
            mirror.start(tx, at.chain_id, genesis.hash, at.escrow, at.staking, mirrored(header))
        return Step.STARTED

    def _look(self) -> _Chain:
        head = self._chain.header("latest")
        if head is None:
            raise BadAnswer("the chain has no latest block")
        final = self._chain.header("finalized")
        return _Chain(head.number, final.number if final is not None else max(0, head.number - self._depth))

    def _stranger(self, position: _Position) -> str:
        """Why the chain can't be the mirrored one (same id, another life), or nothing."""
        genesis = self._chain.header(0)
        if genesis is None:
            raise BadAnswer("the chain has no block 0: its endpoint is not ready")
        if genesis.hash == position.genesis:
            return ""
        return (
            f"the chain starts with block {genesis.hash}, the mirrored one with {position.genesis}: it is another "
            f"chain or a new life of this one. If the RPC endpoint was wrong, correct it, {_RESUME}; else {_REBUILD}"
        )

    def _behind(self, position: _Position, chain: _Chain) -> Step:
        """The chain is shorter than the mirror: a lagging endpoint (wait), another chain, or a reorg."""
        if stranger := self._stranger(position):
            return self._halt(stranger)
        with self._database.transaction() as tx:
            known = mirror.blocks_down_from(tx, chain.head, 1)
        header = self._chain.header(known[0].number) if known else None
        if header is None or header.hash == known[0].hash:
            return Step.IDLE
        return self._reorganise(position)

    def _advance(self, position: _Position, chain: _Chain) -> Step:
        first = position.number + 1
        final = first <= chain.final
        if final:
            batch = self._reader.range(first, chain.final)
        else:
            batch = self._reader.blocks(first, min(chain.head, position.number + LIVE_BLOCKS_PER_STEP))
        if batch.parent_hash != position.hash:
            raise Inconsistent(f"block {first} doesn't follow the mirror's block {position.number}")
        if not self._apply(position, chain, batch, undoable=not final):
            return Step.HALTED
        return self._done(Step.BACKFILLED if final else Step.APPLIED, len(batch.events))

    def _apply(self, position: _Position, chain: _Chain, batch: Decoded, *, undoable: bool) -> bool:
        """Events, rows and cursor in one transaction; false if it halted."""
        events = [at for at, _ in batch.events]
        try:
            with self._database.transaction() as tx:
                cursor = mirror.lock(tx, position.number, position.hash)
                rows = Workspace(lambda table, keys: derived.load(tx, table, keys))
                _expect(rows, events)
                block = -1
                for at, event in batch.events:
                    if undoable and at.block_number != block:
                        block = at.block_number
                        rows.begin(block)
                    reduce(rows, at, event)
                mirror.apply(tx, batch.blocks, events, batch.lines, rows.changes, rows.images)
                mirror.advance(tx, cursor, batch.blocks[-1], head=chain.head, final=chain.final)
        except Contradiction as error:
            self._halt(f"{error}; the mirror and the chain contradict each other: {_REBUILD}")
            return False
        return True

    def _reorganise(self, position: _Position) -> Step:
        self._reader.drop()
        if stranger := self._stranger(position):
            return self._halt(stranger)
        ancestor = self._common_ancestor(position)
        if ancestor is None or ancestor.number < position.final:
            self._check_finality_broken(position)
            deepest = "no common block" if ancestor is None else f"block {ancestor.number}"
            return self._halt(
                f"the chain was reorganised down to {deepest}, below block {position.final} that was final. If the "
                f"RPC endpoint was wrong, correct it, {_RESUME}; else {_REBUILD}"
            )
        with self._database.transaction() as tx:
            cursor = mirror.lock(tx, position.number, position.hash)
            taken = mirror.roll_back(tx, cursor, ancestor)
        depth = position.number - ancestor.number
        _log.warning("reorganised", depth=depth, ancestor=ancestor.number, events_taken_back=taken)
        return self._done(Step.ROLLED_BACK, taken)

    def _common_ancestor(self, position: _Position) -> MirroredBlock | None:
        """The newest mirrored block that the chain still has."""
        number = position.number
        while True:
            with self._database.transaction() as tx:
                known = mirror.blocks_down_from(tx, number, _ANCESTOR_PAGE)
            if not known:
                return None
            headers = self._chain.headers([block.number for block in known])
            for block, header in zip(known, headers, strict=True):
                if header is not None and header.hash == block.hash:
                    return block
            number = known[-1].number - 1

    def _check_finality_broken(self, position: _Position) -> None:
        """Raises Inconsistent unless the chain has another block where a final one was: an endpoint that lags, or that
        changed its mind between two answers, is no reason to halt."""
        with self._database.transaction() as tx:
            known = mirror.blocks_down_from(tx, position.final, 1)
        header = self._chain.header(known[0].number) if known else None
        if known and (header is None or header.hash == known[0].hash):
            found = "has none" if header is None else "has the same again"
            raise Inconsistent(f"block {known[0].number} was final and the endpoint {found}: its answers don't fit")

    def _halt(self, reason: str) -> Step:
        with self._database.transaction() as tx:
            mirror.halt(tx, reason)
        _log.critical("halted", reason=reason)
        return self._done(Step.HALTED, 0)

    def _done(self, step: Step, count: int) -> Step:
        self._on_step(step, count)
        return step


def _expect(rows: Workspace, events: Sequence[MirroredEvent]) -> None:
    """Read what the events will change in a few queries: what they name, and whom their leases pay."""
    wanted = touched(events)
    for table, keys in wanted.items():
        rows.expect(table, keys)
    paid = {lease.provider for key in wanted["lease"] if (lease := rows.find(Lease, key)) is not None}
    rows.expect("provider", paid)
    rows.expect("claimable", paid)
