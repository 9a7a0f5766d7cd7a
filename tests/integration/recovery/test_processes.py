"""The real processes: a job recovers though the broker dies and PostgreSQL cuts every connection meanwhile."""

import time
from pathlib import Path

import pytest
from sqlalchemy import text

from everlease.db.outbox import emit
from tests.support.broker import Broker
from tests.support.recovery import Stage
from tests.support.recovery_processes import service

pytestmark = [pytest.mark.anvil, pytest.mark.timeout(240)]


def watch(stage: Stage, job: str, state: str, timeout_s: float = 60.0) -> None:
    """Be indexer and node until the job is in ``state``: mirror the chain, beat, answer what is asked."""
    end = time.monotonic() + timeout_s
    while stage.job(job).state != state:
        assert time.monotonic() < end, stage.describe(job)
        before = stage.describe(job)
        stage.mirror()
        for kind in ("prepare", "start"):
            if stage.has_command(job, kind):
                stage.answer(job, kind)
        with stage.database.transaction() as tx:
            emit(tx, "chain.changed", {"job_id": job})
        if stage.job(job).state == "RUNNING":
            stage.beat(job)
        if before == stage.describe(job):
            time.sleep(0.2)


def bid_when_asked(stage: Stage, job: str, index: int, timeout_s: float = 40.0) -> None:
    end = time.monotonic() + timeout_s
    while not stage.has_open_auction(job):
        assert time.monotonic() < end, stage.describe(job)
        time.sleep(0.1)
    stage.bid(job, index)


def test_a_job_recovers_through_a_dead_broker_and_a_cut_database(stage: Stage, broker: Broker, tmp_path: Path) -> None:
    first, second = stage.node(5), stage.node(6)
    job = stage.launch()
    with service(stage, tmp_path, broker.url):
        bid_when_asked(stage, job, 5)
        watch(stage, job, "RUNNING")
        stage.beat(job, 6, 0.3)
        stage.checkpoint(job)
        lease = stage.award(job).lease_id

        broker.kill()
        stage.kill(first)
        deadline = time.monotonic() + 20
        while stage.job(job).state != "RECOVERING":
            assert time.monotonic() < deadline, stage.describe(job)
            time.sleep(0.1)
        broker.start()
        bid_when_asked(stage, job, 6)
        with stage.database.transaction() as tx:
            tx.execute(
                text(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
            )
        stage.database.close()
        watch(stage, job, "RUNNING")
    assert stage.award(job).node == second
    assert stage.award(job).fence == 2
    suspended = stage.lease(lease)
    assert suspended is not None
    assert suspended.state == "SUSPENDED"
    assert suspended.earned >= 1, "what was saved was receipted and paid"
