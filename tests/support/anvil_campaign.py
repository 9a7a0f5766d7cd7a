"""Seeded reorg scenarios on a real Anvil with the real contracts: ``anvil_reorg``, restarts of the indexer, new blocks.

One node serves many scenarios; each starts with an empty mirror and back-fills what the ones before left.
"""

import random

from everlease.db import Database, mirror
from indexer.follower import Follower, Step
from tests.support.deployed import DOLLAR, Market
from tests.support.mirrors import dump


class AnvilScenario:
    """``run`` raises AssertionError where the mirror differs from one that is built anew on the canonical chain.

    The node's finalized tag must lie deeper than the reorgs of a scenario reach: ``running_anvil(slots=256)``.
    """

    def __init__(self, seed: int, market: Market, database: Database, fresh: Database, *, deepest: int = 64) -> None:
        self._chance = random.Random(seed)
        self._market, self._database, self._fresh = market, database, fresh
        self._deepest = deepest
        self.depths: list[int] = []

    def run(self) -> None:
        """Blocks, steps, reorgs (nested at times) of up to ``deepest`` blocks, restarts; then the comparison."""
        chance, market = self._chance, self._market
        for database in (self._database, self._fresh):
            with database.transaction() as tx:
                mirror.clear(tx)
        self._act(chance.randrange(1, 4))
        market.anvil.mine(chance.choice([1, 3, self._deepest]))
        self._act(chance.randrange(3))
        ours = self._follower(self._database)
        for _ in range(chance.randrange(1, 4)):
            for _ in range(chance.randrange(4)):
                ours.step()
            self._reorganise()
            if chance.random() < 0.4:
                ours.step()
                self._reorganise()
            self._act(chance.randrange(3))
            if chance.random() < 0.4:
                ours = self._follower(self._database)
        market.anvil.mine(2)
        assert ours.catch_up() is Step.IDLE
        assert self._follower(self._fresh).catch_up() is Step.IDLE
        assert dump(self._database) == dump(self._fresh)

    def _follower(self, database: Database) -> Follower:
        return Follower(self._market.chain, self._market.deployment, database)

    def _act(self, count: int) -> None:
        """Transactions whose events need nothing that a reorg could take."""
        market = self._market
        for _ in range(count):
            call = self._chance.choice(
                [
                    market.staking.stake(self._chance.randrange(1, DOLLAR)),
                    market.staking.set_metadata(f"b{self._chance.randrange(10**6)}"),
                ]
            )
            market.send(market.provider, call)

    def _reorganise(self) -> None:
        head = self._market.chain.header("latest")
        assert head is not None
        room = head.number - self._market.deployment.block - 12
        depth = min(self._chance.choice([1, 1, 2, 3, 5, 8, 16, 32, self._deepest]), room)
        if depth < 1:
            return
        self._market.anvil.reorg(depth)
        self.depths.append(depth)
