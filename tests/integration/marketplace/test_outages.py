"""Our own faults cost no host its pay; its own do."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from everlease.db import outages
from everlease.db.models.jobs import AwardRow
from everlease.wire.node import CommitCheckpoint
from marketplace.gateway.commits import take_commit
from marketplace.parts import Parts, build_parts
from marketplace.services.outages import excuse_hosts
from tests.support.deployed import Market
from tests.support.gateway import begin, commit_fields, started
from tests.support.marketplace import FakeNode, Service, free_port, make_settings

pytestmark = pytest.mark.anvil


@pytest.fixture
def storeless(service: Service, market: Market, postgres_url: str, tmp_path: Path) -> Iterator[Parts]:
    """A replica that can't reach its store."""
    folder = tmp_path / "storeless"
    folder.mkdir()
    away = f"http://127.0.0.1:{free_port()}"
    (folder / "master.key").write_bytes((tmp_path / "master.key").read_bytes())
    (folder / "master.key").chmod(0o600)
    parts = build_parts(make_settings(market, postgres_url, folder, store=away))
    yield parts
    parts.close()


def saved(service: Service, held: AwardRow) -> float:
    with service.db.transaction() as tx:
        return tx.get_one(AwardRow, held.id).saved_s


def away(service: Service) -> frozenset[str]:
    with service.db.transaction() as tx:
        return outages.between(tx, outages.clock(tx) - 4, outages.clock(tx))


def serve(service: Service, held: AwardRow, seconds: float) -> None:
    with service.db.transaction() as tx:
        tx.get_one(AwardRow, held.id).earned_s += seconds


def at_work(service: Service, node: FakeNode, job_id: str) -> AwardRow:
    """The award of a node that has served for 100 seconds."""
    node.connect()
    held, _ = started(service, node, job_id)
    begin(service, held)
    serve(service, held, 100)
    return held


def test_a_commit_saves_what_was_served_and_one_that_is_refused_saves_nothing(
    service: Service, node: FakeNode, job_id: str
) -> None:
    held = at_work(service, node, job_id)
    fields = commit_fields(service, node, held)
    node.send("commit_checkpoint", **{**fields, "block_cids": []})
    assert not node.expect("commit_answer").ok
    assert saved(service, held) == 0
    node.send("commit_checkpoint", **fields)
    assert node.expect("commit_answer").ok
    assert saved(service, held) == 100
    serve(service, held, 50)
    node.send("commit_checkpoint", **fields)
    assert node.expect("commit_answer").ok
    assert saved(service, held) == 100, "a repeat saves nothing"


def test_a_commit_that_fails_for_want_of_our_store_counts_as_made(
    service: Service, storeless: Parts, node: FakeNode, job_id: str
) -> None:
    held = at_work(service, node, job_id)
    message = CommitCheckpoint(type="commit_checkpoint", seq=1, **commit_fields(service, node, held))
    answer = take_commit(storeless, node.key.address, message)
    assert (answer.ok, answer.fenced) == (False, False)
    assert "store" in answer.error
    assert saved(service, held) == 100
    assert away(service) == {"store"}
    serve(service, held, 50)
    forged = message.model_copy(update={"signature": "0x" + "11" * 65})
    assert not take_commit(storeless, node.key.address, forged).ok
    assert saved(service, held) == 100, "a commit that would be refused anyway counts for nothing"


def test_while_the_store_is_away_all_service_counts_as_saved(
    service: Service, storeless: Parts, node: FakeNode, job_id: str
) -> None:
    held = at_work(service, node, job_id)
    assert excuse_hosts(service.parts, time.monotonic() - 5) == 0
    assert (saved(service, held), away(service)) == (0, frozenset())
    assert excuse_hosts(storeless, time.monotonic() - 5) == 1
    assert saved(service, held) == 100
    assert away(service) == {"store"}, "whatever failed meanwhile is no host's fault"
    assert excuse_hosts(storeless, time.monotonic() - 5) == 0, "nothing new was served"
