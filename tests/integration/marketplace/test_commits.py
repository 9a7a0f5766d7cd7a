"""Checkpoint commits: fenced, complete, once."""

from typing import Any

import httpx
import pytest

from everlease.db import checkpoints, jobs
from tests.support.deployed import Market
from tests.support.gateway import commit_fields, started, topics
from tests.support.marketplace import FakeNode, Service

pytestmark = pytest.mark.anvil


def test_a_commit_moves_the_head_once(service: Service, node: FakeNode, job_id: str, tenant: httpx.Client) -> None:
    node.connect()
    held, _ = started(service, node, job_id)
    fields = commit_fields(service, node, held)
    for _ in range(2):
        node.send("commit_checkpoint", **fields)
        answer = node.expect("commit_answer")
        assert (answer.ok, answer.head) == (True, fields["manifest"])
    assert topics(service).count("checkpoint.committed") == 1
    (shown,) = tenant.get(f"/v1/jobs/{job_id}/checkpoints").json()["items"]
    assert (shown["seq"], shown["manifest"]) == (1, fields["manifest"])
    node.send("commit_checkpoint", **commit_fields(service, node, held, b"next"))
    assert node.expect("commit_answer").ok
    # A commit that was made before the head moved on is still answered yes: its answer may have been lost.
    node.send("commit_checkpoint", **fields)
    assert node.expect("commit_answer").ok


@pytest.mark.parametrize(
    ("spoil", "word"),
    [
        ({"block_cids": ["bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy"]}, "not in the store"),
        ({"signature": "0x" + "11" * 65}, "sign"),
        ({"checkpoint_seq": 5}, "the head is"),
        ({"generation": 99}, "generation"),
        ({"generations": [1, 77]}, "generations"),
        ({"requirements": {"kernel": "6.1"}}, "requirements"),
        ({"fence": 42}, "never awarded"),
    ],
)
def test_a_wrong_commit_changes_nothing(
    service: Service, node: FakeNode, job_id: str, spoil: dict[str, Any], word: str
) -> None:
    node.connect()
    held, _ = started(service, node, job_id)
    node.send("commit_checkpoint", **{**commit_fields(service, node, held), **spoil})
    answer = node.expect("commit_answer")
    assert (answer.ok, answer.fenced) == (False, False)
    assert word in answer.error
    with service.db.transaction() as tx:
        assert jobs.get(tx, job_id).head_seq == 0
        assert checkpoints.page(tx, job_id, None, 10) == []


def test_of_two_fences_the_newer_commits(service: Service, market: Market, node: FakeNode, job_id: str) -> None:
    node.connect()
    old, _ = started(service, node, job_id)
    late = commit_fields(service, node, old, b"late")
    new, _ = started(service, node, job_id)
    node.send("commit_checkpoint", **commit_fields(service, node, new, b"new"))
    node.send("commit_checkpoint", **late)
    first, second = node.expect("commit_answer"), node.expect("commit_answer")
    assert first.ok
    assert (second.ok, second.fenced) == (False, True)
    with service.db.transaction() as tx:
        assert jobs.get(tx, job_id).head_manifest == first.head
