"""Suspended leases, judged by rows that the accused doesn't write: who is cleared by the watcher, and who is not."""

import time
from datetime import UTC, datetime

import pytest
from sqlalchemy import select

from everlease.db import commands, outages, records
from everlease.db import receipts as receipt_rows
from everlease.db.models.jobs import AwardRow, JobEventRow
from everlease.db.models.nodes import CommandRow, NodeRow
from everlease.db.terms import awarded
from everlease.db.timers import hold_watch
from recovery import receipts, watch
from recovery.clearing import clear_leases
from recovery.monitor import WATCH_KEY, Monitor
from tests.support.deployed import key
from tests.support.presence import gateway_up
from tests.support.recovery import Stage

pytestmark = pytest.mark.anvil


def hand_over(stage: Stage, job: str, kind: str) -> None:
    """The gateway puts the open command of this kind on its node's socket."""
    with stage.database.transaction() as tx:
        for row in stage.commands(tx, job):
            if row.kind == kind and row.finished_at is None:
                commands.mark_sent(tx, row.id)


def prepared_on(stage: Stage, job: str, index: int) -> str:
    """The job's lease is open at the node of account ``index``, which was told to prepare; the lease's id."""
    stage.until(job, lambda s: s.has_open_auction(job))
    stage.bid(job, index)
    stage.until(job, lambda s: s.has_command(job, "prepare"))
    hand_over(stage, job, "prepare")
    stage.until(job, lambda s: s.lease_state(s.award(job).lease_id) == "ACTIVE")
    stage.reach(job, "PREPARING")
    return stage.award(job).lease_id


def clear(stage: Stage) -> int:
    """One sweep, sent and mirrored."""
    found = clear_leases(stage.desk)
    stage.sender.pump(stage.desk.watcher.address)
    stage.mirror()
    return found


def slashed(stage: Stage, index: int) -> int:
    return stage.market.views.stake(key(index).address).slashed


def test_a_tenant_that_suspends_a_host_at_work_pays_the_bond_and_the_host_nothing(stage: Stage) -> None:
    stage.node(5)
    job = stage.launch()
    lease = prepared_on(stage, job, 5)
    with stage.database.transaction() as tx:
        params = awarded(tx, stage.job(job), lease)
    stage.market.anvil.warp(20)
    stage.market.send(stage.market.tenant, stage.market.escrow.suspend(params))
    stage.until(job, lambda s: s.lease_state(lease) == "SUSPENDED")
    stage.advance(job)
    assert clear(stage) == 1
    assert stage.lease_state(lease) == "CLEARED"
    assert slashed(stage, 5) == 0
    assert stage.market.views.claimable(key(5).address) == stage.market.deployment.terms.bond
    assert clear(stage) == 0
    with stage.database.transaction() as tx:
        assert records.bonds_given(tx, stage.job(job)) == 1


def test_a_tenant_that_suspends_a_host_at_work_pays_for_what_is_in_no_checkpoint(stage: Stage) -> None:
    stage.node(5)
    job = stage.launch()
    lease = prepared_on(stage, job, 5)
    stage.answer(job, "prepare")
    stage.until(job, lambda s: s.has_command(job, "start"))
    hand_over(stage, job, "start")
    stage.answer(job, "start")
    stage.reach(job, "RUNNING")
    stage.beat(job)
    with stage.database.transaction() as tx:
        tx.get_one(AwardRow, stage.award(job).id).earned_s = 100
        params = awarded(tx, stage.job(job), lease)
    stage.market.anvil.warp(120)
    stage.market.send(stage.market.tenant, stage.market.escrow.suspend(params))
    stage.until(job, lambda s: s.lease_state(lease) == "SUSPENDED")
    stage.advance(job)
    assert (stage.award(job).outcome, stage.award(job).saved_s) == ("voided", 0)
    assert clear(stage) == 1
    assert stage.lease_state(lease) == "CLEARED"
    with stage.database.transaction() as tx:
        row = receipt_rows.newest(tx, lease)
        assert row is not None
        assert (row.final, row.earned) == (True, 100)


def failed_at(stage: Stage, job: str, index: int, following: int) -> str:
    """Its Prepare fails at the node of account ``index``, its lease is suspended with that of ``following``."""
    lease = prepared_on(stage, job, index)
    stage.answer(job, "prepare", ok=False, error="the image can't be unpacked")
    stage.until(job, lambda s: s.has_open_auction(job))
    stage.market.anvil.warp(20)
    stage.bid(job, following)
    stage.until(job, lambda s: s.lease_state(lease) == "SUSPENDED")
    return lease


@pytest.mark.parametrize("known", [True, False])
def test_a_host_that_failed_what_another_can_is_left_to_answer_for_itself(stage: Stage, known: bool) -> None:
    """The other is proven, and committed what came of it: a tenant that hosts, too, convicts nobody."""
    stage.node(5)
    stage.node(6)
    if known:
        stage.prove(6)
    job = stage.launch()
    lease = failed_at(stage, job, 5, 6)
    assert clear(stage) == 0, "nobody else has tried it yet"
    stage.answer(job, "prepare")
    stage.until(job, lambda s: s.has_command(job, "start"))
    stage.answer(job, "start")
    stage.reach(job, "RUNNING")
    stage.beat(job, 3, 0.3)
    stage.checkpoint(job)
    stage.market.anvil.warp(stage.market.deployment.terms.answer_window // 2)
    stage.mirror()
    assert clear(stage) == (not known)
    assert stage.lease_state(lease) == ("SUSPENDED" if known else "CLEARED")


def test_two_that_fail_one_after_the_other_are_not_cleared_before_a_third_could_show_that_it_works(
    stage: Stage,
) -> None:
    for index in (5, 6):
        stage.node(index)
        stage.prove(index)
    job = stage.launch()
    lease = failed_at(stage, job, 5, 6)
    stage.until(job, lambda s: s.has_command(job, "prepare"))
    hand_over(stage, job, "prepare")
    stage.answer(job, "prepare", ok=False, error="the image can't be unpacked")
    stage.until(job, lambda s: s.has_open_auction(job))
    assert clear(stage) == 0
    stage.market.anvil.warp(stage.market.deployment.terms.answer_window // 3 + 2)
    stage.mirror()
    assert clear(stage) == 1
    with stage.database.transaction() as tx:
        told = tx.scalar(select(JobEventRow).where(JobEventRow.kind == "lease.cleared"))
        assert told is not None
        assert (told.data["lease_id"], "at two unrelated" in told.data["why"]) == (lease, True)


def test_nobody_is_fined_where_nothing_shows_whose_fault_it_was(stage: Stage) -> None:
    stage.node(5)
    stage.node(6)
    job = stage.launch()
    lease = failed_at(stage, job, 5, 6)
    assert clear(stage) == 0
    stage.market.anvil.warp(stage.market.deployment.terms.answer_window // 3 + 2)
    stage.mirror()
    assert clear(stage) == 1
    assert stage.lease_state(lease) == "CLEARED"
    assert slashed(stage, 5) == 0
    with stage.database.transaction() as tx:
        told = tx.scalar(select(JobEventRow).where(JobEventRow.kind == "lease.cleared"))
        assert told is not None
        assert "nothing shows" in told.data["why"]


@pytest.mark.parametrize("gateway_down", [True, False])
def test_an_outage_of_the_gateway_clears_the_silent_of_that_time_and_no_other(stage: Stage, gateway_down: bool) -> None:
    stage.node(5)
    stage.node(6)
    job = stage.launch()
    stage.run_on(job, 5)
    lease = stage.award(job).lease_id
    stage.beat(job, 2, 0.3)
    if gateway_down:
        with stage.database.transaction() as tx:
            outages.note(tx, "gateway", time.time() - 0.2, time.time())
    stage.lose(job)
    stage.market.anvil.warp(20)
    stage.until(job, lambda s: s.has_open_auction(job))
    stage.bid(job, 6)
    stage.until(job, lambda s: s.lease_state(lease) == "SUSPENDED")
    assert clear(stage) == gateway_down
    assert stage.lease_state(lease) == ("CLEARED" if gateway_down else "SUSPENDED")


def test_heartbeats_before_the_start_give_receipts_of_nothing_until_the_deadline(stage: Stage) -> None:
    stage.node(5)
    job = stage.launch()
    lease = prepared_on(stage, job, 5)
    watcher = stage.desk.watcher
    stage.beat(job, serving=False)
    assert receipts.sign_all(stage.database, watcher, stage.desk.clock) == 1
    with stage.database.transaction() as tx:
        row = receipt_rows.newest(tx, lease)
        assert row is not None
        assert (row.earned, row.final) == (0, False)
        assert row.seen_at >= int(time.time()) - 2
        command = tx.scalar(select(CommandRow).where(CommandRow.kind == "prepare"))
        assert command is not None
        command.deadline = datetime.fromtimestamp(time.time() - 1, UTC)
    time.sleep(1.1)
    stage.beat(job, serving=False)
    assert receipts.sign_all(stage.database, watcher, stage.desk.clock) == 0, "its time is over"


def test_what_came_before_the_start_is_not_paid(stage: Stage) -> None:
    stage.node(5)
    job = stage.launch()
    prepared_on(stage, job, 5)
    stage.beat(job, serving=False)
    time.sleep(1.5)
    stage.answer(job, "prepare")
    stage.until(job, lambda s: s.has_command(job, "start"))
    stage.answer(job, "start")
    stage.reach(job, "RUNNING")
    stage.beat(job)
    with stage.database.transaction() as tx:
        award = tx.scalar(select(AwardRow))
        assert award is not None
        assert award.earned_s < 1.4


def test_outages_are_noted_by_who_watches(stage: Stage) -> None:
    stage.mirror()
    clock = now = time.time()
    noted = watch.Outages(lambda: clock)

    def look(at: float) -> frozenset[str]:
        nonlocal clock
        clock = at
        return look_of(stage, noted, at, now)

    with gateway_up(stage.database):
        assert look(now) == frozenset()
        assert look(now + 60) == frozenset(), "a pause of ours alone is no outage"
    assert look(now + 61) == {"gateway"}
    assert look(now + 61.2) == {"gateway"}
    with gateway_up(stage.database):
        noted.database_away()
        assert look(now + 90) == {"gateway", "database"}
        assert look(now + 91) == {"gateway", "database"}
        assert look(now + watch.MIRROR_AGE_S + 60) == {"gateway", "database", "chain"}
    with stage.database.transaction() as tx:
        assert outages.between(tx, now + 62, now + 89) == {"database", "chain"}, "the gateway was back"


def look_of(stage: Stage, noted: watch.Outages, at: float, since: float) -> frozenset[str]:
    with stage.database.transaction() as tx:
        noted.note(tx, at)
        tx.flush()
        found = outages.between(tx, since - 1, since + 100_000)
    noted.database_there()
    return found


def test_all_nodes_silent_at_once_are_no_outage_while_a_gateway_is_up(stage: Stage, job: str) -> None:
    """They may be one provider's, who would clear itself."""
    with stage.database.transaction() as tx:
        for node in (stage.award(job).node, stage.node(6)):
            tx.get_one(NodeRow, node).last_seen = datetime.fromtimestamp(time.time() - 10, UTC)
    with gateway_up(stage.database), hold_watch(stage.database, WATCH_KEY) as hold:
        assert hold is not None
        with stage.database.transaction() as tx:
            assert watch.deaf(tx, hold.now(), stage.desk.policy.liveness)
        Monitor(stage.desk).tick(hold)
    with stage.database.transaction() as tx:
        assert outages.between(tx, 0, time.time()) == frozenset()


def test_the_hours_in_which_another_replica_watched_are_no_outage(stage: Stage) -> None:
    """One that was cut off knows from the database when others looked."""
    now, clock = time.time(), 0.0
    cut_off, other = watch.Outages(lambda: clock), watch.Outages(lambda: clock)
    with gateway_up(stage.database):
        look_of(stage, cut_off, now, now)
        cut_off.database_away()
        for clock in (10.0, 20_000.0):
            assert look_of(stage, other, now + clock, now) <= {"chain"}
        assert "database" in look_of(stage, cut_off, now + 20_010, now)
    with stage.database.transaction() as tx:
        assert "database" not in outages.between(tx, now, now + 19_000)


def test_a_replica_that_takes_over_after_an_outage_notes_it(stage: Stage) -> None:
    now, clock = time.time(), 0.0
    first, second = watch.Outages(lambda: clock), watch.Outages(lambda: clock)
    with gateway_up(stage.database):
        look_of(stage, first, now, now)
        second.database_there()
        second.database_away()
        clock = 100.0
        assert look_of(stage, second, now + clock, now) == {"database"}
    with stage.database.transaction() as tx:
        assert outages.between(tx, now + 10, now + 90) == {"database"}
        outages.forget(tx, now + 99)
        assert outages.between(tx, now, now + 100) == {"database"}
        outages.forget(tx, now + 101)
        assert outages.between(tx, now, now + 100) == frozenset()
