"""Resuming over HTTP: from which checkpoints, by whom, how often; and what of them can be seen and fetched."""

from pathlib import Path
from typing import Any

import httpx
import pytest

from everlease.db import checkpoints, jobs
from everlease.db.models.jobs import CheckpointRow, JobRow
from everlease.db.models.mirror import EscrowRow
from everlease.store.plain import upload_plain
from tests.support.deployed import Market, key
from tests.support.gateway import commit_fields, started, topics
from tests.support.marketplace import FakeNode, Service, mirror_escrow

pytestmark = pytest.mark.anvil


@pytest.fixture
def over(service: Service, node: FakeNode, market: Market, job_id: str) -> str:
    """A job that is said to have succeeded, with checkpoints 1 to 3, the last of them final."""
    mirror_escrow(service.db, market, job_id)
    node.connect()
    held, _ = started(service, node, job_id)
    for number in range(3):
        fields = commit_fields(service, node, held, b"number %d" % number)
        node.send("commit_checkpoint", **fields, final=number == 2)
        assert node.expect("commit_answer").ok
    with service.db.transaction() as tx:
        tx.get_one(JobRow, job_id).state = "SUCCEEDED"
    return job_id


def resume(tenant: httpx.Client, job: str, seq: int | None = None, **headers: str) -> httpx.Response:
    return tenant.post(f"/v1/jobs/{job}/resume", json={"checkpoint_seq": seq}, headers=headers)


def wish(service: Service, job: str) -> tuple[str | None, Any]:
    with service.db.transaction() as tx:
        row = jobs.get(tx, job)
        return row.wish, row.wish_detail.get("seq")


def test_an_ended_job_is_asked_to_resume_once(service: Service, tenant: httpx.Client, over: str) -> None:
    copies = [resume(tenant, over, 1, **{"Idempotency-Key": "resume-again"}) for _ in range(2)]
    assert [answer.status_code for answer in copies] == [202, 202]
    assert resume(tenant, over, 1).status_code == 202
    assert wish(service, over) == ("resume", 1)
    assert topics(service).count("job.wished") == 1
    assert resume(tenant, over, 2).json()["type"].endswith("wish-pending")


def test_without_a_number_it_goes_on_from_the_newest_that_holds_its_program(
    service: Service, tenant: httpx.Client, over: str
) -> None:
    assert resume(tenant, over).status_code == 202
    assert wish(service, over) == ("resume", 2)


def test_where_only_outputs_are_kept_or_0_is_named_it_begins_at_the_beginning(
    service: Service, tenant: httpx.Client, over: str
) -> None:
    with service.db.transaction() as tx:
        for seq in (1, 2):
            tx.get_one(CheckpointRow, (over, seq)).condemned_at = tx.get_one(CheckpointRow, (over, seq)).taken_at
    copies = [resume(tenant, over, seq, **{"Idempotency-Key": "resume-from-0"}).status_code for seq in (None, None, 0)]
    assert copies == [202, 202, 422], "the same key for another request"
    assert wish(service, over) == ("resume", 0)
    assert resume(tenant, over, 0).status_code == 202
    assert resume(tenant, over, -1).status_code == 422


def test_only_what_is_kept_whole_and_sound_is_resumed_from(
    service: Service, tenant: httpx.Client, market: Market, over: str
) -> None:
    def refusal(seq: int) -> str:
        answer = resume(tenant, over, seq)
        assert answer.status_code == 409, answer.text
        assert wish(service, over) == (None, None)
        return str(answer.json()["detail"])

    assert "no checkpoint 9" in refusal(9)
    assert "holds the job's outputs" in refusal(3)
    with service.db.transaction() as tx:
        tx.get_one(CheckpointRow, (over, 2)).damaged = "a block is wrong"
    assert "can't be restored (a block is wrong)" in refusal(2)
    with service.db.transaction() as tx:
        row = checkpoints.numbered(tx, over, 2)
        assert row is not None
        row.damaged, row.condemned_at = "", row.taken_at
    assert "not kept any more" in refusal(2)
    with service.db.transaction() as tx:
        blocks = list(tx.get_one(CheckpointRow, (over, 1)).block_cids)
    service.parts.store._local.delete(blocks)
    assert "lacks 1 of its blocks" in refusal(1)
    stranger = service.client(key(6))
    assert resume(stranger, over, 1).status_code == 404
    stranger.close()


@pytest.mark.parametrize("ran", [True, False])
def test_without_its_image_no_job_is_resumed(
    service: Service, tenant: httpx.Client, market: Market, tmp_path: Path, request: pytest.FixtureRequest, ran: bool
) -> None:
    """An order that is paid late has FAILED before it ran, and its image is kept no longer."""
    job = request.getfixturevalue("over" if ran else "job_id")
    file = tmp_path / "image.tar"
    file.write_bytes(b"an image")
    store = service.parts.store._local
    plain = upload_plain(store, file)
    if not ran:
        mirror_escrow(service.db, market, job)
    with service.db.transaction() as tx:
        row = tx.get_one(JobRow, job)
        row.image_manifest, row.state = plain.cid, "FAILED"
    store.delete([plain.blocks[0][0]])
    answer = resume(tenant, job)
    assert (answer.status_code, answer.json()["type"]) == (409, "urn:everlease:problem:image-gone"), answer.text
    assert "is not kept any more: launch it anew" in answer.json()["detail"]
    assert wish(service, job) == (None, None)
    upload_plain(store, file)
    assert resume(tenant, job).status_code == 202
    assert wish(service, job) == ("resume", 2 if ran else 0)


def test_after_a_cancel_on_chain_there_is_only_the_download(service: Service, tenant: httpx.Client, over: str) -> None:
    with service.db.transaction() as tx:
        tx.get_one(EscrowRow, over).cancelled = True
    answer = resume(tenant, over, 1)
    assert (answer.status_code, answer.json()["type"].rsplit(":", 1)[-1]) == (409, "cancelled-on-chain")
    fetched = tenant.get(
        f"/v1/jobs/{over}/outputs", params={"public_key": "QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE=", "seq": 1}
    )
    assert (fetched.status_code, fetched.json()["seq"]) == (200, 1)


def test_the_list_shows_what_is_kept_and_what_became_of_it(
    service: Service, tenant: httpx.Client, node: FakeNode, over: str
) -> None:
    with service.db.transaction() as tx:
        tx.get_one(CheckpointRow, (over, 2)).condemned_at = tx.get_one(CheckpointRow, (over, 2)).taken_at
    page = tenant.get(f"/v1/jobs/{over}/checkpoints", params={"kept": True}).json()["items"]
    assert [(it["seq"], it["head"], it["final"], it["provider"]) for it in page] == [
        (3, True, True, node.provider.address),
        (1, False, False, node.provider.address),
    ]
    assert len(tenant.get(f"/v1/jobs/{over}/checkpoints").json()["items"]) == 3
