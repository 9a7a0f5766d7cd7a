"""Commands, their answers, and when a key is released."""

import base64
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from nacl.public import PrivateKey, SealedBox

from everlease.db import commands
from everlease.domain.manifest import CID
from everlease.store.cid import cid_of
from tests.support.deployed import key
from tests.support.gateway import (
    award,
    command_row,
    commit_fields,
    issue,
    refused_command,
    start_payload,
    started,
    starting,
    topics,
)
from tests.support.marketplace import SPEC, FakeNode, Service, make_award, mirror_lease

pytestmark = pytest.mark.anvil


def test_a_command_is_sent_answered_and_sent_again_after_a_reconnect(
    service: Service, node: FakeNode, job_id: str
) -> None:
    node.connect()
    held = award(service, node, job_id)
    issue(service, held, "prepare", {"spec": SPEC, "checkpoint": None})
    command = node.expect("command").command
    assert (command.kind, command.step) == ("prepare", f"prepare/{held.fence}")
    assert command.store_token
    node.close()
    node.connect()
    assert node.expect("command").command.step == command.step
    result = {"job_id": job_id, "fence": held.fence, "step": command.step, "ok": True, "result": {"fetch_s": 1.5}}
    node.send("command_result", result=result)
    node.send("command_result", result={**result, "ok": False})
    node.beat()
    row = command_row(service, command.step)
    assert (row.ok, row.result) == (True, {"fetch_s": 1.5})
    assert topics(service).count("command.finished") == 1


def test_no_key_before_the_lease_is_active(service: Service, node: FakeNode, job_id: str) -> None:
    node.connect()
    held = award(service, node, job_id)
    issue(service, held, "start", start_payload(held), "start/too-early")
    refused = refused_command(service, "start/too-early")
    assert (refused.ok, refused.retryable, refused.sent_at) == (False, True, None)
    assert "not ACTIVE" in refused.error
    mirror_lease(service.db, held, "SUSPENDED")
    issue(service, held, "start", start_payload(held), "start/suspended")
    assert "SUSPENDED" in refused_command(service, "start/suspended").error
    mirror_lease(service.db, held)
    issue(service, held, "start", start_payload(held), "start/ok")
    command = node.expect("command").command
    assert command.step == "start/ok"
    assert set(command.keys) == {held.generation}
    assert len(node.unseal(command.keys[held.generation])) == 32
    assert len(node.unseal(command.dedup_secret)) == 32


def test_a_start_says_how_long_the_host_waits_not_until_when(service: Service, node: FakeNode, job_id: str) -> None:
    """The host's clock may be an hour ahead: it must not start before the former host is fenced."""
    node.connect()
    held = award(service, node, job_id)
    mirror_lease(service.db, held)
    issue(service, held, "start", start_payload(held) | {"not_before": service.parts.clock() + 300})
    first = node.expect("command").command.wait_s
    assert 200 < first <= 300
    node.close()
    node.connect()
    again = node.expect("command").command.wait_s
    assert 200 < again < first, "only the rest, when it is sent again"


def test_no_key_for_another_node(service: Service, node: FakeNode, job_id: str) -> None:
    node.connect()
    held = make_award(service.db, job_id, key(6), node.provider)
    mirror_lease(service.db, held)
    deadline = datetime.now(UTC) + timedelta(seconds=60)
    with service.db.transaction() as tx:
        commands.issue(tx, node.key.address, job_id, held.fence, "start/x", "start", start_payload(held), deadline)
    assert "doesn't hold this job" in refused_command(service, "start/x").error


def test_a_later_award_gets_the_earlier_generations_and_one_of_its_own(
    service: Service, node: FakeNode, job_id: str, tenant: httpx.Client
) -> None:
    node.connect()
    first, one = started(service, node, job_id)
    node.send("commit_checkpoint", **commit_fields(service, node, first))
    assert node.expect("commit_answer").ok
    second, two = started(service, node, job_id)
    assert set(two.keys) == {first.generation, second.generation}
    assert (two.checkpoint_node, two.checkpoint_seq) == (node.key.address, 1)
    assert node.unseal(one.keys[first.generation]) == node.unseal(two.keys[first.generation])
    assert node.unseal(one.dedup_secret) == node.unseal(two.dedup_secret)
    reader = PrivateKey.generate()
    public = base64.urlsafe_b64encode(bytes(reader.public_key)).decode()
    outputs = tenant.get(f"/v1/jobs/{job_id}/outputs", params={"public_key": public}).json()
    sealed = base64.b64decode(outputs["keys"][str(first.generation)])
    assert SealedBox(reader).decrypt(sealed) == node.unseal(one.keys[first.generation])
    assert outputs["seq"] == 1


@pytest.mark.parametrize("gone", [False, True])
def test_a_block_that_a_host_calls_damaged_is_looked_at(
    service: Service, node: FakeNode, job_id: str, gone: bool
) -> None:
    """The store's own copy decides, and only blocks of the checkpoint that it was to restore count."""
    node.connect()
    first, _ = started(service, node, job_id)
    commit = commit_fields(service, node, first)
    node.send("commit_checkpoint", **commit)
    assert node.expect("commit_answer").ok
    (block,) = commit["block_cids"]
    held, command = starting(service, node, job_id)
    if gone:
        service.parts.store._local.delete([CID(block)])
    said = {"ok": False, "error": "a block is damaged", "result": {"damaged": block}}
    node.send("command_result", result={"job_id": job_id, "fence": held.fence, "step": command.step, **said})
    node.beat()
    assert command_row(service, command.step).result == {"damaged" if gone else "called_damaged": block}


def test_a_block_of_something_else_that_is_not_there_damages_no_checkpoint(
    service: Service, node: FakeNode, job_id: str
) -> None:
    node.connect()
    first, _ = started(service, node, job_id)
    node.send("commit_checkpoint", **commit_fields(service, node, first))
    assert node.expect("commit_answer").ok
    held, command = starting(service, node, job_id)
    for named in (cid_of(b"never stored"), 7):
        said = {"ok": False, "error": "no", "result": {"damaged": named}}
        node.send("command_result", result={"job_id": job_id, "fence": held.fence, "step": command.step, **said})
    node.beat()
    assert command_row(service, command.step).result == {"called_damaged": cid_of(b"never stored")}
