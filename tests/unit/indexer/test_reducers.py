"""Reducers: complete, in step with the tables, and bound to the lease's state table, every state × action pair."""

import pytest

from everlease.chain._generated import events as ev
from everlease.chain._generated.enums import CreditReason
from everlease.db.models import Base
from everlease.domain.lease import IllegalLeaseAction, LeaseAction, LeaseState, allows, next_state
from everlease.domain.mirrored import MirroredEvent
from indexer.records import KINDS, Claimable, Escrow, Lease, Provider, replace
from indexer.reducers import HANDLED, reduce
from indexer.workspace import Contradiction, Workspace

JOB, LEASE = "0x" + "0a" * 32, "0x" + "1e" * 32
WHO = "0x" + "77" * 20
KEEPER = "0x" + "99" * 20


def place(event: ev.Event) -> MirroredEvent:
    job_id = JOB if hasattr(event, "job_id") else None
    return MirroredEvent(
        9, 3, "0x" + "bb" * 32, 5000, "0x" + "cc" * 32, WHO, type(event).__name__, {}, job_id, None, ()
    )


LEASE_ROW = Lease(LEASE, JOB, 1, WHO, WHO, 1000, 50, 100, 10, 4000, 9000, 9060, 1, "0x" + "cc" * 32, 8)
ESCROW_ROW = Escrow(
    JOB, WHO, WHO, "0x" + "5b" * 32, 1000, 500, 1, 5, 9, 1, 9000, 9000, 9, 1000, 1, 500, 500, 3000, 7,
    epochs=1, reserved=110, active_lease=LEASE,
)  # fmt: skip

EVENTS: dict[LeaseAction, ev.Event] = {
    LeaseAction.OPEN: ev.LeaseOpened(JOB, LEASE, WHO, WHO, 1, 1000, 50, 100, 10, 1, 4000, 9000, 9060, 1),
    LeaseAction.COLLECT: ev.LeaseCollected(JOB, LEASE, 10, 4010, 1, 20, 1, 80, "0x" + "00" * 32),
    LeaseAction.NOTICE: ev.LeaseNotice(JOB, LEASE, 5060, 5120),
    LeaseAction.CLOSE: ev.LeaseClosed(JOB, LEASE, WHO),
    LeaseAction.SUSPEND: ev.LeaseSuspended(JOB, LEASE, WHO, 5000, 5060, 90),
    LeaseAction.ANSWER_PROVEN: ev.LeaseCleared(JOB, LEASE, WHO),
    LeaseAction.ANSWER_BARE: ev.LeaseFailed(JOB, LEASE, WHO, True, 0, 0, 5),
    LeaseAction.FAIL: ev.LeaseFailed(JOB, LEASE, KEEPER, False, 15, 2, 33),
}


def workspace(state: LeaseState) -> Workspace:
    rows = Workspace(lambda table, keys: {})
    rows.put(ESCROW_ROW)
    rows.put(Provider(WHO, 7, staked=500, locked=LEASE_ROW.collateral))
    if state is not LeaseState.NONE:
        rows.put(replace(LEASE_ROW, state=state.value))
    return rows


@pytest.mark.parametrize("action", list(LeaseAction))
@pytest.mark.parametrize("state", list(LeaseState))
def test_every_state_and_action_goes_through_the_table(state: LeaseState, action: LeaseAction) -> None:
    rows = workspace(state)
    event = EVENTS[action]
    if not allows(state, action):
        with pytest.raises(IllegalLeaseAction):
            next_state(state, action)
        with pytest.raises(Contradiction):
            reduce(rows, place(event), event)
        return
    reduce(rows, place(event), event)
    assert rows.get(Lease, LEASE).state == next_state(state, action).value


def test_every_event_of_the_contracts_has_a_reducer() -> None:
    assert frozenset(ev.EVENTS.values()) == HANDLED


def test_records_are_the_tables_columns() -> None:
    for table, kind in KINDS.items():
        assert set(kind.__struct_fields__) == set(Base.metadata.tables[table].columns.keys())


def test_money_of_a_failed_lease() -> None:
    rows = workspace(LeaseState.SUSPENDED)
    event = EVENTS[LeaseAction.FAIL]
    reduce(rows, place(event), event)
    escrow = rows.get(Escrow, JOB)
    assert (escrow.balance, escrow.reserved, escrow.active_lease) == (515, 0, None)
    assert rows.get(Lease, LEASE).slashed == 50
    provider = rows.get(Provider, WHO)
    assert (provider.failed, provider.locked) == (1, 0)
    assert rows.get(Claimable, KEEPER).amount == 2


def test_money_of_a_collect_and_a_cleared_lease() -> None:
    rows = workspace(LeaseState.ACTIVE)
    event = EVENTS[LeaseAction.COLLECT]
    reduce(rows, place(event), event)
    escrow, lease = rows.get(Escrow, JOB), rows.get(Lease, LEASE)
    assert (escrow.balance, escrow.reserved, escrow.paid, escrow.fees) == (480, 90, 20, 1)
    assert (lease.paid, lease.fee, lease.reserve, lease.seq) == (20, 1, 80, 1)
    assert rows.get(Claimable, WHO).amount == 19
    for action in (LeaseAction.SUSPEND, LeaseAction.ANSWER_PROVEN):
        reduce(rows, place(EVENTS[action]), EVENTS[action])
    escrow = rows.get(Escrow, JOB)
    assert (escrow.balance, escrow.reserved, escrow.active_lease) == (470, 0, None)
    assert rows.get(Claimable, WHO).amount == 29
    assert rows.get(Provider, WHO).locked == 0
    reduce(rows, place(ev.FeesSwept(JOB, 1)), ev.FeesSwept(JOB, 1))
    assert rows.get(Escrow, JOB).fees == 0


def test_a_suspended_lease_that_ends_leaves_the_next_one_active() -> None:
    rows = workspace(LeaseState.SUSPENDED)
    rows.put(replace(ESCROW_ROW, active_lease="0x" + "2f" * 32))
    event = EVENTS[LeaseAction.FAIL]
    reduce(rows, place(event), event)
    assert rows.get(Escrow, JOB).active_lease == "0x" + "2f" * 32


def test_a_workspace_remembers_what_was() -> None:
    stored = {"account": WHO, "block": 1, "amount": 5, "credited": 5, "withdrawn": 0}
    rows = Workspace(lambda table, keys: {WHO: stored} if table == "claimable" else {})
    rows.begin(9)
    event = ev.Withdrawn(WHO, WHO, 5)
    reduce(rows, place(event), event)
    before = {(table, key): row for _, table, key, row in rows.images}
    assert before["claimable", WHO] == stored
    (change,) = [change for change in rows.changes if change.table == "claimable"]
    assert (change.rows[0][change.columns.index("amount")], change.replaced) == (0, {WHO})
    payment = next(key for key in before if key[0] == "payment")
    assert before[payment] is None
    rows.begin(10)
    reduce(rows, place(ev.Credited(WHO, 7, CreditReason.REFUND)), ev.Credited(WHO, 7, CreditReason.REFUND))
    assert next(row for at, table, _, row in rows.images if (at, table) == (10, "claimable")) == before[
        "claimable", WHO
    ] | {"amount": 0, "withdrawn": 5, "block": 9}


def test_no_event_names_more_addresses_than_the_mirror_has_columns_for() -> None:
    columns = [column for column in Base.metadata.tables["idx_event"].columns if column.name.startswith("party_")]
    for event in ev.EVENTS.values():
        assert sum(field.abi_type == "address" for field in event.FIELDS) <= len(columns), event.__name__
