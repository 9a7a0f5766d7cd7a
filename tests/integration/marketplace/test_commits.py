"""Checkpoint commits: fenced, complete, once."""

from datetime import timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import select

from everlease.db import awards, checkpoints, jobs
from everlease.db.models.jobs import AwardRow, CheckpointRow, JobRow
from everlease.db.models.nodes import NodeRow
from everlease.domain import compat
from everlease.domain.manifest import BlockRef, FileEntry
from tests.support.deployed import Market
from tests.support.gateway import commit_fields, issue, started, starting, topics
from tests.support.marketplace import FACTS, FakeNode, Service

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
        ({"generations": []}, "generations"),
        ({"block_cids": []}, "other blocks"),
        ({"mode": "files"}, "mode files"),
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


ZEROS = (BlockRef(None, 0, 0, 1 << 20),) * 5120
"""More than the order's memory and disk."""


def head_of(service: Service, job_id: str) -> CheckpointRow | None:
    with service.db.transaction() as tx:
        manifest = jobs.get(tx, job_id).head_manifest
        return checkpoints.by_manifest(tx, manifest) if manifest else None


@pytest.mark.parametrize("final", [False, True])
def test_nothing_is_committed_before_the_job_started(
    service: Service, node: FakeNode, job_id: str, final: bool
) -> None:
    """A winner with nothing at stake yet would name the job's head, or end the job."""
    node.connect()
    held, command = starting(service, node, job_id)
    node.send("commit_checkpoint", **commit_fields(service, node, held), final=final)
    assert "not started" in node.expect("commit_answer").error
    assert head_of(service, job_id) is None
    result = {"job_id": job_id, "fence": held.fence, "step": command.step, "ok": True}
    node.send("command_result", result=result)
    node.send("commit_checkpoint", **commit_fields(service, node, held), final=final)
    assert node.expect("commit_answer").ok, "recovery need not have noted the start"


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"lease_id": "0x" + "77" * 32}, "lease_id"),
        ({"epoch": 9}, "epoch"),
        ({"fence": 9}, "fence"),
        ({"entries": (FileEntry("criu/pages", "file", 5 << 30, blocks=ZEROS, layout="aligned"),)}, "the order allows"),
    ],
)
def test_a_manifest_that_says_otherwise_is_no_checkpoint(
    service: Service, node: FakeNode, job_id: str, changes: dict[str, Any], word: str
) -> None:
    node.connect()
    held, _ = started(service, node, job_id)
    fields = commit_fields(service, node, held, **changes)
    node.send("commit_checkpoint", **{**fields, "fence": held.fence})
    answer = node.expect("commit_answer")
    assert (answer.ok, answer.fenced) == (False, False)
    assert word in answer.error
    assert head_of(service, job_id) is None


def test_a_block_that_is_no_manifest_is_no_checkpoint(service: Service, node: FakeNode, job_id: str) -> None:
    node.connect()
    held, _ = started(service, node, job_id)
    fields = commit_fields(service, node, held)
    node.send("commit_checkpoint", **{**fields, "manifest": fields["block_cids"][0]})
    assert "manifest can't be taken" in node.expect("commit_answer").error
    other = commit_fields(service, node, held, b"other")
    node.send("commit_checkpoint", **{**other, "manifest": fields["manifest"], "block_cids": fields["block_cids"]})
    assert "another manifest" in node.expect("commit_answer").error
    assert head_of(service, job_id) is None


def test_what_a_checkpoint_needs_and_weighs_is_not_its_hosts_word(
    service: Service, node: FakeNode, job_id: str
) -> None:
    node.connect()
    held, _ = started(service, node, job_id)
    fields = commit_fields(service, node, held)
    lies = {"requirements": {"kernel": "99.1"}, "logical_bytes": 1 << 60}
    node.send("commit_checkpoint", **{**fields, **lies})
    assert node.expect("commit_answer").ok
    row = head_of(service, job_id)
    assert row is not None
    assert (row.logical_bytes, row.requirements) == (len(b"sealed"), compat.needs_of(FACTS, 0))


@pytest.mark.parametrize("gpus", [[1], 1, [[]], {"model": "H200"}])
def test_garbled_facts_of_its_host_are_an_answer_and_not_the_end_of_the_session(
    service: Service, node: FakeNode, job_id: str, gpus: object
) -> None:
    node.connect()
    held, _ = started(service, node, job_id)
    with service.db.transaction() as tx:
        tx.get_one(NodeRow, node.key.address).facts = {**FACTS, "gpus": gpus}
    node.send("commit_checkpoint", **commit_fields(service, node, held))
    answer = node.expect("commit_answer")
    assert not answer.ok
    assert "facts" in answer.error


def test_files_are_taken_of_a_process_award_only_after_a_failed_trial_and_if_the_order_allows_it(
    service: Service, node: FakeNode, job_id: str
) -> None:
    node.connect()
    held, _ = started(service, node, job_id)
    fields = commit_fields(service, node, held, mode="files")
    for allowed, told in ((False, True), (True, False), (True, True)):
        with service.db.transaction() as tx:
            job = tx.get_one(JobRow, job_id)
            job.spec = {**job.spec, "checkpoint": {**job.spec["checkpoint"], "fall_back_to_files": allowed}}
            awards.note(tx, job_id, held.fence, {}, {"undumpable": "inotify" if told else None})
        node.send("commit_checkpoint", **fields)
        assert node.expect("commit_answer").ok is (allowed and told)


def commit(service: Service, node: FakeNode, held: AwardRow, number: int, *, final: bool = False) -> str:
    """Why the next checkpoint is refused, or nothing."""
    node.send("commit_checkpoint", **commit_fields(service, node, held, b"number %d" % number), final=final)
    answer = node.expect("commit_answer")
    assert not answer.fenced
    return str(answer.error)


def test_a_host_commits_no_faster_than_the_order_asks_for(service: Service, node: FakeNode, job_id: str) -> None:
    """What it was asked for and its outputs apart; and a refusal takes nothing from it but that checkpoint."""
    node.connect()
    held, _ = started(service, node, job_id)
    assert [commit(service, node, held, number) for number in range(20)] == [""] * 20
    refusal = commit(service, node, held, 20)
    assert "20 checkpoints were committed within 160 s: the order asks for one in 10 s" in refusal
    assert node.beat() is not None
    issue(service, held, "checkpoint", {"hold": True}, "hold/migrate-1/1")
    assert node.expect("command").command.kind == "checkpoint"
    assert commit(service, node, held, 21) == "", "asked for"
    assert "21 checkpoints" in commit(service, node, held, 22)
    with service.db.transaction() as tx:
        for row in tx.scalars(select(CheckpointRow)):
            row.committed_at -= timedelta(seconds=161)
    assert commit(service, node, held, 23) == "", "time has passed"
    assert commit(service, node, held, 24, final=True) == ""


def test_outputs_are_committed_a_few_times_at_most(service: Service, node: FakeNode, job_id: str) -> None:
    node.connect()
    held, _ = started(service, node, job_id)
    assert [commit(service, node, held, number, final=True) for number in range(8)] == [""] * 8
    assert "8 final checkpoints" in commit(service, node, held, 8, final=True)
    with service.db.transaction() as tx:
        tx.get_one(JobRow, job_id).last_seq += 100
    assert "8 final checkpoints" in commit(service, node, held, 9, final=True), "however many came in between"


def test_no_checkpoint_follows_outputs_under_one_award(service: Service, node: FakeNode, job_id: str) -> None:
    node.connect()
    held, _ = started(service, node, job_id)
    assert commit(service, node, held, 1) == ""
    assert commit(service, node, held, 2, final=True) == ""
    assert "no checkpoint follows them" in commit(service, node, held, 3)
    assert commit(service, node, held, 4, final=True) == ""


def test_outputs_on_top_do_not_make_files_of_a_job_of_processes(service: Service, node: FakeNode, job_id: str) -> None:
    node.connect()
    held, _ = started(service, node, job_id)
    assert commit(service, node, held, 1) == ""
    final = commit_fields(service, node, held, b"outputs", mode="files")
    node.send("commit_checkpoint", **final, final=True)
    assert node.expect("commit_answer").ok
    held, _ = started(service, node, job_id)
    with service.db.transaction() as tx:
        job = tx.get_one(JobRow, job_id)
        job.spec = {**job.spec, "checkpoint": {**job.spec["checkpoint"], "fall_back_to_files": True}}
        awards.note(tx, job_id, held.fence, {}, {"undumpable": "inotify"})
    node.send("commit_checkpoint", **commit_fields(service, node, held, b"more", mode="files"))
    assert "of mode files" in node.expect("commit_answer").error


def test_files_do_not_take_the_place_of_processes_on_one_hosts_word(
    service: Service, node: FakeNode, job_id: str
) -> None:
    node.connect()
    held, _ = started(service, node, job_id)
    node.send("commit_checkpoint", **commit_fields(service, node, held))
    assert node.expect("commit_answer").ok
    with service.db.transaction() as tx:
        job = tx.get_one(JobRow, job_id)
        job.spec = {**job.spec, "checkpoint": {**job.spec["checkpoint"], "fall_back_to_files": True}}
        awards.note(tx, job_id, held.fence, {}, {"undumpable": "inotify"})
    node.send("commit_checkpoint", **commit_fields(service, node, held, b"second", mode="files"))
    answer = node.expect("commit_answer")
    assert (answer.ok, "of mode files" in answer.error) == (False, True)
