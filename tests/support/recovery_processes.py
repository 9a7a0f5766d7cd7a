"""The service's own processes on a test's servers: Celery worker, beat, and the monitor; ended by their pids."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.anvil import KEYS
from tests.support.presence import gateway_up
from tests.support.recovery import Stage

ROOT = Path(__file__).parents[2]


def environment(stage: Stage, folder: Path, broker_url: str) -> dict[str, str]:
    """Settings of recovery for this stage; the watcher is development account 2."""
    deployments = folder / "deployments.json"
    stage.market.deployment.save(deployments)
    return {
        **os.environ,
        "EVERLEASE_RECOVERY_DEPLOYMENTS": str(deployments),
        "EVERLEASE_RECOVERY_RPC_URLS": f'["{stage.market.anvil.url}"]',
        "EVERLEASE_RECOVERY_DATABASE_URL": stage.database.url,
        "EVERLEASE_RECOVERY_BROKER_URL": broker_url,
        "EVERLEASE_RECOVERY_WATCHER_KEY": KEYS[2],
        "EVERLEASE_RECOVERY_AUCTION_WINDOW": "3",
        "EVERLEASE_RECOVERY_RECOVERY_WINDOW": "3",
        "EVERLEASE_RECOVERY_RECEIPT_EVERY": "0.5",
        "PYTHONPATH": str(ROOT),
    }


@contextmanager
def running(settings: dict[str, str], log: Path, *arguments: str) -> Iterator["subprocess.Popen[bytes]"]:
    """One ``python -m …`` process; SIGTERM at the end, SIGKILL if that is ignored."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", *arguments], cwd=ROOT, env=settings, stdout=output, stderr=subprocess.STDOUT
        )
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextmanager
def service(stage: Stage, folder: Path, broker_url: str) -> Iterator[Path]:
    """Worker with beat, and monitor; yields the folder of their logs."""
    settings = environment(stage, folder, broker_url)
    worker = ("celery", "-A", "recovery.app", "worker", "-B", "-P", "threads", "-c", "2", "-l", "INFO")
    beat = ("-s", str(folder / "beat"), "--without-gossip", "--without-mingle")
    with (
        gateway_up(stage.database),
        running(settings, folder / "worker.log", *worker, *beat),
        running(settings, folder / "monitor.log", "recovery.monitor"),
    ):
        yield folder
