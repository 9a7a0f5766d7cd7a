"""A job's way through recovery on real PostgreSQL and Anvil: launch, loss, another host, the old lease fails."""

import time

import pytest

from recovery import sweeps
from tests.support.recovery import Stage

pytestmark = pytest.mark.anvil


def test_launch_runs_then_a_loss_moves_the_job_and_fails_the_old_lease(stage: Stage) -> None:
    stage.node(5)
    stage.node(6)
    job = stage.launch()
    stage.run_on(job, 5)
    first = stage.award(job)
    assert first.epoch == 1
    stage.beat(job, 3, 0.1)
    manifest = stage.checkpoint(job)

    stage.lose(job)
    assert stage.job(job).state == "RECOVERING"
    stage.run_on(job, 6)

    second = stage.award(job)
    assert (second.epoch, second.fence) == (2, first.fence + 1)
    assert second.restore_manifest == manifest
    assert second.settle == "suspend"
    lease = stage.lease(first.lease_id)
    assert lease is not None
    assert lease.state == "SUSPENDED"
    assert second.start_sent_at is not None
    assert second.start_sent_at.timestamp() >= (first.last_beat_at or first.awarded_at).timestamp() + 4

    assert sweeps.settle_leases(stage.desk) == 0, "the answer window is open"
    stage.market.anvil.warp(stage.market.deployment.terms.answer_window + 10)
    stage.market.anvil.mine(3)
    stage.mirror()
    later = Stage(stage.market, stage.database, stage.desk, stage.sender, stage.follower)
    object.__setattr__(later.desk, "clock", lambda: time.time() + 100)
    assert sweeps.settle_leases(later.desk) == 1
    later.sender.pump(later.desk.watcher.address)
    stage.mirror()
    lease = stage.lease(first.lease_id)
    assert lease is not None
    assert lease.state == "FAILED"
    assert stage.market.views.claimable(stage.market.watcher.address) > 0
