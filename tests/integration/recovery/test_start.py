"""A worker that is pointed at a chain without the deployment's contracts sends nothing to it."""

from pathlib import Path

import pytest
from structlog.testing import capture_logs

from everlease.chain.rpc import RpcChain
from everlease.db import journal
from recovery.broker import make_app
from recovery.settings import RecoverySettings
from recovery.tasks import Tasks
from tests.support.anvil import KEYS, running_anvil
from tests.support.recovery import Stage

pytestmark = pytest.mark.anvil


def test_nothing_is_sent_to_a_chain_without_the_contracts(stage: Stage, tmp_path: Path) -> None:
    watcher, mint = stage.market.watcher.address, stage.market.asset.mint(stage.market.watcher.address, 1)
    with stage.database.transaction() as tx:
        journal.enqueue(tx, action_key="mint", sender=watcher, to=mint.to, data=mint.data, call="mint")
    stage.market.deployment.save(tmp_path / "deployments.json")
    with running_anvil() as other:
        settings = RecoverySettings(
            deployments=tmp_path / "deployments.json",
            rpc_urls=[other.url],
            database_url=stage.database.url,
            broker_url="memory://",
            watcher_key=KEYS[2],
        )
        tasks = Tasks(make_app(settings), settings)
        with capture_logs() as logs:
            tasks.pump(None)  # type: ignore[arg-type]
        assert [entry["event"] for entry in logs] == ["pump.failed"]
        assert f"has no contract at {stage.market.deployment.escrow}" in logs[0]["error"]
        chain = RpcChain.connect([other.url])
        assert chain.nonce(watcher) == 0
        chain.close()
        tasks.runtime.close()
