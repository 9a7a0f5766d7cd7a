"""Every lease state × action, three times over: the Python table, the contract on Anvil, the indexer's reducers.

The contract frees a lease that has ended, so there it is NONE again; it can't be opened twice all the same.
"""

from collections.abc import Callable, Iterator
from itertools import count

import pytest

from everlease.chain.contracts import Call
from everlease.chain.errors import CallReverted
from everlease.db import Database
from everlease.db.models.mirror import LeaseRow
from everlease.domain.lease import ENDED, IllegalLeaseAction, LeaseAction, LeaseState, next_state
from indexer.follower import Follower, Step
from tests.support.anvil import running_anvil
from tests.support.deployed import TERMS, Market, make_market
from tests.support.postgres import PostgresServer

pytestmark = pytest.mark.anvil

A, S = LeaseAction, LeaseState
_nonces = count(100)


def freed(state: LeaseState) -> LeaseState:
    """What the contract says of a lease in ``state``."""
    return S.NONE if state in ENDED else state


class Stage:
    """One market for all pairs, mirrored as it goes; every pair has a job of its own."""

    def __init__(self, market: Market, database: Database) -> None:
        self.market, self.database = market, database
        self._follower = Follower(market.chain, market.deployment, database)

    def mirrored(self, lease: str) -> LeaseState:
        """The lease's state in the mirror, once it has caught up."""
        assert self._follower.catch_up() is Step.IDLE
        with self.database.transaction() as tx:
            row = tx.get(LeaseRow, lease)
            return S.NONE if row is None else S(row.state)

    def on_chain(self, lease: str) -> LeaseState:
        """The lease's state in the contract."""
        return self.market.views.lease(lease).state

    def bring_to(self, state: LeaseState) -> tuple[str, Call]:
        """A lease in ``state``, and the call that opens (or opened) it."""
        market, nonce = self.market, next(_nonces)
        job = market.fund(market.order(nonce))
        opening, lease = market.open_call(job, 1, slot=nonce)
        path = {
            S.NONE: [],
            S.ACTIVE: [A.OPEN],
            S.CLOSED: [A.OPEN, A.CLOSE],
            S.SUSPENDED: [A.OPEN, A.SUSPEND],
            S.CLEARED: [A.OPEN, A.SUSPEND, A.ANSWER_PROVEN],
            S.FAILED: [A.OPEN, A.SUSPEND, A.FAIL],
        }[state]
        for action in path:
            self.act(action, lease, opening)
        assert self.on_chain(lease) is freed(state)
        return lease, opening

    def act(self, action: LeaseAction, lease: str, opening: Call) -> None:
        """Try ``action`` with time, caller and receipt such that only the state decides; raises CallReverted."""
        market, escrow = self.market, self.market.escrow
        if action in (A.SUSPEND, A.FAIL):
            market.anvil.warp(10 if action is A.SUSPEND else TERMS.answer_window + 1)
        params = market.leases[lease]
        started = market.views.lease(lease).started_at or market.now()
        proven = market.receipt(lease, 3, started + 3600, seq=3)
        bare = market.receipt(lease, 1, started, seq=1)
        ended = market.receipt(lease, 2, started + 2, final=True, seq=2)
        calls: dict[LeaseAction, Callable[[], Call]] = {
            A.OPEN: lambda: opening,
            A.COLLECT: lambda: escrow.collect(params, *bare),
            A.NOTICE: lambda: escrow.notice(params),
            A.CLOSE: lambda: escrow.close(params, *ended),
            A.SUSPEND: lambda: escrow.suspend(params, *bare),
            A.ANSWER_PROVEN: lambda: escrow.answer(params, *proven),
            A.ANSWER_BARE: lambda: escrow.answer(params),
            A.FAIL: lambda: escrow.fail(params),
        }
        by_provider = action in (A.NOTICE, A.ANSWER_BARE, A.ANSWER_PROVEN)
        key = market.provider if by_provider else market.watcher
        call = calls[action]()
        market.chain.call(call.to, call.data, sender=key.address)
        market.send(key, call)


@pytest.fixture(scope="module")
def stage(postgres_server: PostgresServer) -> Iterator[Stage]:
    name = postgres_server.create_database()
    database = Database(postgres_server.url(name))
    with running_anvil() as anvil:
        market = make_market(anvil)
        market.send(market.tenant, market.asset.mint(market.tenant.address, 10**12))
        market.send(market.tenant, market.asset.mint(market.provider.address, 10**12))
        market.stake(10**10)
        yield Stage(market, database)
        market.chain.close()
    database.close()
    postgres_server.drop_database(name)


@pytest.mark.parametrize("action", list(LeaseAction))
@pytest.mark.parametrize("state", list(LeaseState))
def test_contract_mirror_and_table_agree(stage: Stage, state: LeaseState, action: LeaseAction) -> None:
    lease, opening = stage.bring_to(state)
    assert stage.mirrored(lease) is state
    try:
        expected = next_state(state, action)
    except IllegalLeaseAction:
        with pytest.raises(CallReverted) as reverted:
            stage.act(action, lease, opening)
        refusals = {"JobIsActive", "WrongEpoch"} if action is A.OPEN else {"WrongLeaseState"}
        assert reverted.value.name in refusals
        expected = state
    else:
        stage.act(action, lease, opening)
    assert stage.on_chain(lease) is freed(expected)
    assert stage.mirrored(lease) is expected
