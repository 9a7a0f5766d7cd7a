"""The node gateway, spoken to by a real WebSocket client: admission, heartbeats, commands, keys, commits, refusals."""

import base64
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from eth_account import Account
from eth_account.messages import encode_defunct
from nacl.public import PrivateKey, SealedBox
from sqlalchemy import select, text
from websockets.exceptions import ConnectionClosed

from everlease.db import auctions, checkpoints, commands, jobs, nodes
from everlease.db.models.jobs import AuctionRow, AwardRow, BidRow
from everlease.db.models.nodes import CommandRow
from everlease.db.models.outbox import OutboxRow
from everlease.store.base import put_block
from everlease.store.http import HttpBlockStore
from tests.support.deployed import Market, key
from tests.support.marketplace import REQUIREMENTS, SPEC, FakeNode, Service, make_award, mirror_lease

pytestmark = pytest.mark.anvil


def topics(service: Service) -> list[str]:
    with service.db.transaction() as tx:
        return list(tx.scalars(select(OutboxRow.topic).order_by(OutboxRow.id)))


def refusals(service: Service, job_id: str) -> dict[str, int]:
    with service.db.transaction() as tx:
        return nodes.refusals(tx, job_id)


def award(service: Service, node: FakeNode, job_id: str) -> AwardRow:
    return make_award(service.db, job_id, node.key, node.provider)


def begin(service: Service, held: AwardRow) -> None:
    with service.db.transaction() as tx:
        row = tx.get_one(AwardRow, held.id)
        row.started_at = datetime.now(UTC)


def line(held: AwardRow, serving: bool = True) -> dict[str, Any]:
    return {"job_id": held.job_id, "fence": held.fence, "serving": serving, "loss_bound_s": 12.5}


def issue(service: Service, held: AwardRow, kind: str, payload: dict[str, Any], step: str = "") -> None:
    deadline = datetime.now(UTC) + timedelta(seconds=60)
    with service.db.transaction() as tx:
        step = step or f"{kind}/{held.fence}"
        commands.issue(tx, held.node, held.job_id, held.fence, step, kind, payload, deadline)


def start_payload(held: AwardRow) -> dict[str, Any]:
    return {
        "lease_id": held.lease_id,
        "epoch": held.epoch,
        "rate_per_hour": held.rate_per_hour,
        "spec": SPEC,
        "checkpoint": held.restore_manifest,
        "checkpoint_seq": held.restore_seq,
        "mode": held.mode,
        "generation": held.generation,
        "not_before": 0.0,
        "max_silence": 5.0,
        "mtbf_s": 86_400.0,
    }


def command_row(service: Service, step: str) -> CommandRow:
    with service.db.transaction() as tx:
        return tx.scalars(select(CommandRow).where(CommandRow.step == step)).one()


def refused_command(service: Service, step: str) -> CommandRow:
    """The command once the gateway has finished it by itself."""
    until = time.monotonic() + 10
    while (row := command_row(service, step)).finished_at is None and time.monotonic() < until:
        time.sleep(0.05)
    return row


def started(service: Service, node: FakeNode, job_id: str) -> tuple[AwardRow, Any]:
    """An award whose Start was sent: its generation has a key."""
    held = award(service, node, job_id)
    mirror_lease(service.db, held)
    issue(service, held, "start", start_payload(held))
    return held, node.expect("command").command


def commit_fields(service: Service, node: FakeNode, held: AwardRow, content: bytes = b"sealed") -> dict[str, Any]:
    """A commit whose blocks are in the store, following the job's head."""
    token, _ = service.parts.store.token(node.key.address, "test", write=True)
    store = HttpBlockStore(service.parts.store.url, lambda: token)
    block, manifest = put_block(store, content + b"/block"), put_block(store, content + b"/manifest")
    store.close()
    with service.db.transaction() as tx:
        job = jobs.get(tx, held.job_id)
    digest = "0x" + (content * 32)[:32].hex()
    signed = Account.sign_message(encode_defunct(primitive=bytes.fromhex(digest[2:])), node.key.secret)
    return {
        "request": f"commit-{content.decode()}",
        "job_id": held.job_id,
        "fence": held.fence,
        "checkpoint_seq": job.head_seq + 1,
        "manifest": manifest,
        "predecessor": job.head_manifest,
        "manifest_digest": digest,
        "signature": "0x" + bytes(signed.signature).hex(),
        "block_cids": [block],
        "mode": "process",
        "generation": held.generation,
        "generations": [held.generation],
        "logical_bytes": 1000,
        "new_bytes": 100,
        "pause_s": 0.5,
        "total_s": 1.5,
        "taken_at": time.time(),
        "requirements": REQUIREMENTS,
    }


# --- admission ---


def test_a_node_is_admitted_and_seen(service: Service, node: FakeNode) -> None:
    welcome = node.connect()
    assert welcome.resume_after_s == 0
    assert node.challenge.chain_id == 31337
    node.beat()
    with service.client() as client:
        (shown,) = client.get("/v1/nodes").json()["items"]
    assert (shown["node"], shown["connected"], shown["liveness"]) == (node.key.address, True, "ALIVE")
    node.close()
    until = time.monotonic() + 10
    while "node.disconnected" not in topics(service) and time.monotonic() < until:
        time.sleep(0.05)
    assert topics(service) == ["node.connected", "node.disconnected"]


@pytest.mark.parametrize(
    ("spoil", "word"),
    [
        ({"nonce": "0x" + "00" * 32}, "another challenge"),
        ({"signature": "0x" + "11" * 65}, "not signed"),
        ({"provider": key(6).address}, "not signed"),
        ({"sealing_key": "c2hvcnQ="}, "32 bytes"),
    ],
)
def test_a_wrong_hello_is_refused(node: FakeNode, spoil: dict[str, Any], word: str) -> None:
    with pytest.raises(ConnectionClosed) as ended:
        node.connect(**spoil)
    assert ended.value.rcvd is not None
    assert word in ended.value.rcvd.reason


def test_a_node_without_a_provider_on_chain_is_refused(service: Service, market: Market) -> None:
    stranger = FakeNode(service, market, key(6), market.provider)
    with pytest.raises(ConnectionClosed) as ended:
        stranger.connect()
    assert ended.value.rcvd is not None
    assert "has not authorised" in ended.value.rcvd.reason


def test_a_newer_connection_ends_the_older(service: Service, market: Market, node: FakeNode) -> None:
    node.connect()
    again = FakeNode(service, market, market.node, market.provider)
    again.connect()
    with pytest.raises(ConnectionClosed) as ended:
        node.expect("nothing, until it ends")
    assert ended.value.rcvd is not None
    assert ended.value.rcvd.code == 4000
    again.beat()
    again.close()


def test_a_number_out_of_turn_ends_the_connection(node: FakeNode) -> None:
    node.connect()
    node.beat()
    node.sent = 7
    node.send("heartbeat", jobs=[])
    with pytest.raises(ConnectionClosed) as ended:
        node.socket.recv(10)
    assert ended.value.rcvd is not None
    assert ended.value.rcvd.code == 4002


def test_held_containers_are_confirmed_or_dropped(service: Service, node: FakeNode, job_id: str) -> None:
    node.connect()
    held = award(service, node, job_id)
    node.close()
    other = "0x" + "77" * 32
    welcome = node.connect(
        (
            {"job_id": job_id, "fence": held.fence, "state": "frozen"},
            {"job_id": other, "fence": 1, "state": "running"},
        )
    )
    assert (welcome.confirmed, welcome.dropped) == ({job_id: held.fence}, [other])
    node.close()
    make_award(service.db, job_id, key(6), node.provider)
    welcome = node.connect(({"job_id": job_id, "fence": held.fence, "state": "frozen"},))
    assert (welcome.confirmed, welcome.dropped) == ({}, [job_id])


def test_a_node_that_was_lost_waits_before_it_is_asked_again(service: Service, node: FakeNode) -> None:
    node.connect()
    node.close()
    with service.db.transaction() as tx:
        nodes.set_liveness(tx, node.key.address, "LOST", None)
    assert node.connect().resume_after_s == service.settings.shun_base_s


# --- heartbeats ---


def test_service_is_earned_by_heartbeats_alone(service: Service, node: FakeNode, job_id: str) -> None:
    node.connect()
    held = award(service, node, job_id)
    assert node.beat(line(held)).refused == []
    with service.db.transaction() as tx:
        assert tx.get_one(AwardRow, held.id).last_beat_at is None
    begin(service, held)
    for _ in range(3):
        time.sleep(0.2)
        node.beat(line(held))
    with service.db.transaction() as tx:
        row = tx.get_one(AwardRow, held.id, populate_existing=True)
    assert 0.5 < row.earned_s < 5
    assert (row.serving, row.loss_bound_s) == (True, 12.5)
    time.sleep(0.2)
    node.beat(line(held, serving=False))
    with service.db.transaction() as tx:
        after = tx.get_one(AwardRow, held.id, populate_existing=True)
    assert (after.earned_s, after.serving) == (row.earned_s, False)


def test_everything_under_a_stale_fence_is_refused_and_counted(service: Service, node: FakeNode, job_id: str) -> None:
    node.connect()
    held, _ = started(service, node, job_id)
    begin(service, held)
    make_award(service.db, job_id, key(6), node.provider, epoch=2)
    assert node.beat(line(held)).refused == [job_id]
    node.beat(line(held))
    fields = commit_fields(service, node, held)
    node.send("commit_checkpoint", **fields)
    answer = node.expect("commit_answer")
    assert (answer.ok, answer.fenced) == (False, True)
    node.send("receipt_request", job_id=job_id, fence=held.fence, lease_id=held.lease_id)
    assert "stale" in node.expect("refusal").reason
    node.send("log", job_id=job_id, fence=held.fence, stream="stdout", offset=0, text="late")
    assert node.expect("refusal").of == "log"
    result = {"job_id": job_id, "fence": held.fence, "step": f"start/{held.fence}", "ok": True}
    node.send("command_result", result=result)
    assert node.expect("refusal").of == "command_result"
    node.send("token_request", request="t", job_id=job_id, fence=held.fence)
    assert node.expect("token_grant").ok is False
    node.send("notice", job_id=job_id, fence=held.fence, kind="progress")
    assert node.expect("refusal").of == "notice"
    node.send("notice", job_id=job_id, fence=held.fence, kind="fenced", detail="froze itself")
    node.beat()
    assert refusals(service, job_id) == {
        "heartbeat": 2,
        "checkpoint": 1,
        "receipt": 1,
        "log": 1,
        "result": 1,
        "token": 1,
        "notice": 1,
    }
    assert command_row(service, f"start/{held.fence}").ok is False
    with service.db.transaction() as tx:
        assert jobs.get(tx, job_id).head_seq == 0


def test_a_made_up_fence_is_refused_and_not_counted(service: Service, node: FakeNode, job_id: str) -> None:
    node.connect()
    assert node.beat({"job_id": job_id, "fence": 99, "serving": True}).refused == [job_id]
    assert refusals(service, job_id) == {}


# --- commands and keys ---


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
    assert node.unseal(one.keys[first.generation]) == node.unseal(two.keys[first.generation])
    assert node.unseal(one.dedup_secret) == node.unseal(two.dedup_secret)
    reader = PrivateKey.generate()
    public = base64.urlsafe_b64encode(bytes(reader.public_key)).decode()
    outputs = tenant.get(f"/v1/jobs/{job_id}/outputs", params={"public_key": public}).json()
    sealed = base64.b64decode(outputs["keys"][str(first.generation)])
    assert SealedBox(reader).decrypt(sealed) == node.unseal(one.keys[first.generation])
    assert outputs["seq"] == 1


# --- commits ---


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


# --- auctions ---


def open_auction(service: Service, job_id: str, excluded: tuple[str, ...] = (), window_s: float = 30) -> int:
    now = datetime.now(UTC)
    with service.db.transaction() as tx:
        row = AuctionRow(
            job_id=job_id,
            epoch=1,
            plan="first",
            mode="process",
            excluded=list(excluded),
            opened_at=now,
            closes_at=now + timedelta(seconds=window_s),
        )
        tx.add(row)
        tx.flush()
        tx.execute(text("SELECT pg_notify(:c, :i)"), {"c": auctions.CHANNEL, "i": str(row.id)})
        return row.id


def auction_row(service: Service, auction_id: int) -> AuctionRow:
    with service.db.transaction() as tx:
        return tx.get_one(AuctionRow, auction_id)


def test_a_call_is_answered_by_a_bid(service: Service, node: FakeNode, job_id: str) -> None:
    node.connect()
    auction_id = open_auction(service, job_id)
    call = node.expect("call_for_bids")
    assert (call.order_hash, call.epoch, call.auction_id) == (job_id, 1, auction_id)
    node.send("bid", auction_id=auction_id, signed=node.bid(call), missing_bytes=123)
    until = time.monotonic() + 10
    while "auction.answered" not in topics(service) and time.monotonic() < until:
        time.sleep(0.05)
    assert "auction.answered" in topics(service)
    with service.db.transaction() as tx:
        (bid,) = tx.scalars(select(BidRow)).all()
    assert (bid.node, bid.missing_bytes) == (node.key.address, 123)
    assert auction_row(service, auction_id).asked == 1


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"min_rate_per_hour": 2_000_000}, "pays at most"),
        ({"epoch": 2}, "epoch 2"),
        ({"collateral": 1}, "collateral"),
        ({"order_hash": "0x" + "01" * 32}, "another order"),
        ({"deadline": 1}, "expired"),
        ({"node": key(6).address}, "names node"),
    ],
)
def test_a_wrong_bid_is_refused(
    service: Service, node: FakeNode, job_id: str, changes: dict[str, Any], word: str
) -> None:
    node.connect()
    auction_id = open_auction(service, job_id)
    call = node.expect("call_for_bids")
    node.send("bid", auction_id=auction_id, signed=node.bid(call, **changes), missing_bytes=0)
    assert word in node.expect("refusal").reason
    assert auction_row(service, auction_id).unfit[node.key.address].startswith("declined: its bid was refused")


def test_a_bid_with_anothers_signature_is_refused(service: Service, node: FakeNode, job_id: str) -> None:
    node.connect()
    auction_id = open_auction(service, job_id)
    call = node.expect("call_for_bids")
    signed = node.bid(call)
    signed["bid"]["slot"] = 8
    node.send("bid", auction_id=auction_id, signed=signed, missing_bytes=0)
    assert "signed neither" in node.expect("refusal").reason


def test_who_does_not_fit_is_not_asked_and_the_reason_is_kept(service: Service, node: FakeNode, job_id: str) -> None:
    node.facts = {**node.facts, "memory_bytes": 1 << 20}
    node.connect()
    auction_id = open_auction(service, job_id)
    until = time.monotonic() + 10
    while not auction_row(service, auction_id).unfit and time.monotonic() < until:
        time.sleep(0.05)
    row = auction_row(service, auction_id)
    assert row.asked == 0
    assert "memory" in row.unfit[node.key.address]


def test_a_node_that_connects_during_an_auction_is_asked(service: Service, node: FakeNode, job_id: str) -> None:
    auction_id = open_auction(service, job_id)
    node.connect()
    assert node.expect("call_for_bids").auction_id == auction_id


# --- the rest ---


def test_logs_notices_probe_tokens_and_drain(
    service: Service, node: FakeNode, job_id: str, tenant: httpx.Client
) -> None:
    node.connect()
    held = award(service, node, job_id)
    for _ in range(2):
        node.send("log", job_id=job_id, fence=held.fence, stream="stdout", offset=0, text="step 1\n")
    node.send("notice", job_id=job_id, fence=held.fence, kind="trial_dump", detail="fine", data={"pause_s": 0.1})
    node.send("token_request", request="r1", job_id=job_id, fence=held.fence)
    grant = node.expect("token_grant")
    assert (grant.ok, grant.request) == (True, "r1")
    assert [item["text"] for item in tenant.get(f"/v1/jobs/{job_id}/logs").json()["items"]] == ["step 1\n"]
    kinds = [item["kind"] for item in tenant.get(f"/v1/jobs/{job_id}/events").json()["items"]]
    assert "node.trial_dump" in kinds
    with service.db.transaction() as tx:
        tx.execute(text("SELECT pg_notify('everlease_probe', :n)"), {"n": node.key.address})
    ping = node.expect("ping")
    node.send("pong", ping=ping.seq)
    node.send("drain", reason="new disk")
    assert node.expect("drain_status").jobs_left == 1
    make_award(service.db, job_id, key(6), node.provider)
    node.beat()
    assert node.expect("drain_status").jobs_left == 0
    assert {"node.notice", "node.draining", "job.wished"} <= set(topics(service))
    open_auction(service, job_id)
    with pytest.raises(TimeoutError):
        node.expect("call_for_bids", timeout=0.5)
