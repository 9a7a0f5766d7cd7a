"""Hosts that stop in order or whose Docker was restarted: on real tables and a real chain, without a penalty."""

import time
from typing import Any

import pytest

from everlease.db import awards
from everlease.db.outbox import NOTICE, OutboxEvent
from recovery import apply, facts
from tests.support.recovery import Stage

pytestmark = pytest.mark.anvil


def goodbye(stage: Stage, job: str, *, session: str = "s", head: str | None = None) -> bool:
    """As the gateway notes it."""
    award = stage.award(job)
    word = {"at": time.time(), "session": session, "head": head, "still": True, "why": "", "reason": "an update"}
    with stage.database.transaction() as tx:
        return awards.note_goodbye(tx, award.node, job, award.fence, word)


def exits(stage: Stage, job: str, container: str, **data: Any) -> None:
    """A node's notice, as the relay hands it on."""
    award = stage.award(job)
    told = {"job_id": job, "fence": award.fence, "kind": "exited", "node": award.node}
    with stage.database.transaction() as tx:
        event = OutboxEvent(1, NOTICE, {**told, "data": {"container": container, **data}})
        facts.keep(tx, event, time.time())


def test_a_stop_closes_the_lease_with_a_final_receipt_and_moves_the_job_at_once(stage: Stage) -> None:
    stage.node(5)
    stage.node(6)
    job = stage.launch()
    stage.run_on(job, 5)
    stage.beat(job, 3, 0.3)
    head = stage.checkpoint(job)
    old = stage.award(job)
    assert goodbye(stage, job, head=head)
    assert not goodbye(stage, job, head=head), "a second copy changes nothing"
    stage.kill(old.node)
    assert not apply.lose(stage.desk, job, old.fence, {"cause": "disconnected", "last_seen": None})
    stage.run_on(job, 6)
    assert stage.lease_state(old.lease_id) == "CLOSED"
    with stage.database.transaction() as tx:
        ended = awards.under_fence(tx, job, old.fence)
        assert ended is not None
        assert ended.outcome == "stopped"
    row = stage.job(job)
    assert row.recoveries == 0
    assert stage.award(job).restore_manifest == head


def test_beyond_the_bound_a_stop_is_a_loss(stage: Stage) -> None:
    stage.node(5)
    most = stage.desk.policy.max_stops_a_week
    for number in range(most + 1):
        job = stage.launch(nonce=number + 1)
        stage.run_on(job, 5)
        assert goodbye(stage, job, session=f"s{number}")
        stage.advance(job)
        award = stage.award(job)
        assert award.outcome == ("stopped" if number < most else "")
    assert "goodbye" not in award.facts, "the monitor watches it again"
    stage.lose(job)
    assert stage.award(job).outcome == "lost"


def test_new_container_names_do_not_put_an_exit_off(stage: Stage) -> None:
    stage.node(5)
    job = stage.launch()
    stage.run_on(job, 5)
    exits(stage, job, "c1", code=0)
    since = stage.award(job).facts["exited_at"]
    for number in range(3):
        exits(stage, job, f"again-{number}", code=number)
    facts = stage.award(job).facts
    assert (facts["exit_code"], facts["exited_at"], facts["exits"]) == (0, since, ["c1", "again-0"])


def test_the_exit_of_a_restarted_container_waits_until_the_restart_is_counted(stage: Stage) -> None:
    """Recovery was away: the job was started again, and ended well, before anybody wrote down the restart."""
    stage.node(5)
    job = stage.launch()
    stage.run_on(job, 5)
    exits(stage, job, "c1", code=3)
    stage.until(job, lambda s: s.has_command(job, "restart"))
    stage.answer(job, "restart")
    stage.checkpoint(job, final=True)
    exits(stage, job, "c2", code=0)
    stage.reach(job, "SUCCEEDED")
    assert stage.award(job).restarts == 1


def test_a_hosts_fault_is_restarted_in_place_and_counts_apart(stage: Stage) -> None:
    stage.node(5)
    job = stage.launch()
    stage.run_on(job, 5)
    for _ in range(2):
        exits(stage, job, "c1", code=0, host_fault="the host's Docker daemon was started anew")
    stage.until(job, lambda s: s.has_command(job, "restart"))
    stage.answer(job, "restart")
    stage.advance(job)
    award = stage.award(job)
    assert (stage.job(job).state, award.restarts, award.facts["host_faults"]) == ("RUNNING", 0, 1)
    assert "host_fault" not in award.facts
    exits(stage, job, "c2", code=3)
    stage.until(job, lambda s: s.has_command(job, "restart"))
    stage.answer(job, "restart")
    stage.advance(job)
    assert stage.award(job).restarts == 1


def test_an_exit_that_comes_while_the_planner_notes_something_else_is_not_lost(stage: Stage) -> None:
    """Both write facts of one award: what the planner read before is old by then."""
    stage.node(5)
    job = stage.launch()
    stage.run_on(job, 5)
    fence = stage.award(job).fence
    with stage.database.transaction() as planner:
        before = awards.under_fence(planner, job, fence)
        exits(stage, job, "c-1", code=1)
        awards.note(planner, job, fence, {}, {"asked_checkpoints": 1})
        assert before is not None
    noted = stage.award(job).facts
    assert (noted["exit_code"], noted["exits"], noted["asked_checkpoints"]) == (1, ["c-1"], 1)
