"""Jobs over HTTP: what is accepted, what is refused and in which words, idempotency, paging, problems."""

import copy
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from everlease.db import jobs, logs
from everlease.db.models.mirror import EscrowRow
from everlease.domain.job import JobEvent, JobState
from everlease.store.base import get_block, put_block
from everlease.store.cid import cid_of
from everlease.store.http import HttpBlockStore
from everlease.store.plain import upload_plain
from everlease.wire.http import JobRequest
from everlease.wire.terms import OrderModel
from marketplace.problems import ProblemError
from marketplace.services.orders import OrderDesk
from tests.support.deployed import DOLLAR, Market, key
from tests.support.marketplace import SPEC, Service, job_body, mirror_escrow

pytestmark = pytest.mark.anvil
WORK = (
    "listener",
    "command sweep",
    "known networks",
    "loop lag",
    "watch of the store",
    "collection of garbage",
    "scrubbing",
)
TASKS = [f"task {name}" for name in WORK]


def test_an_order_becomes_a_job_once(tenant: httpx.Client, market: Market) -> None:
    body = job_body(market)
    first = tenant.post("/v1/jobs", json=body)
    again = tenant.post("/v1/jobs", json=body)
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json() == again.json()
    assert first.json()["state"] == "PENDING"
    assert first.headers["location"] == f"/v1/jobs/{first.json()['id']}"
    order = OrderModel.model_validate(body["order"]).to_domain()
    # The id is the contract's own digest of the order.
    assert first.json()["id"] == "0x" + market.views.order_hash(order).hex()
    assert tenant.get(f"/v1/jobs/{first.json()['id']}").json()["order"]["deposit"] == 5 * DOLLAR


@pytest.mark.parametrize(
    ("changes", "status", "slug"),
    [
        ({"watcher": "0x" + "11" * 20}, 422, "wrong-watcher"),
        ({"deadline": 1_600_000_000}, 422, "order-expired"),
        ({"deadline": 4_000_000_000}, 422, "deadline-too-far"),
        ({"max_silence": 1}, 422, "silence-out-of-bounds"),
        ({"max_silence": 5}, 422, "silence-out-of-bounds"),
        ({"max_silence": 301}, 422, "silence-out-of-bounds"),
        ({"deposit": 1}, 422, "deposit-too-small"),
        ({"epoch_fee": DOLLAR}, 422, "fee-too-large"),
        ({"deposit": 1001 * DOLLAR}, 422, "deposit-above-balance"),
        ({"job_spec": "0x" + "00" * 32}, 422, "spec-mismatch"),
        ({"tenant": key(6).address}, 403, "not-the-tenant"),
    ],
)
def test_a_wrong_order_gets_one_sentence(
    tenant: httpx.Client, market: Market, changes: dict[str, Any], status: int, slug: str
) -> None:
    answer = tenant.post("/v1/jobs", json=job_body(market, **changes))
    problem = answer.json()
    assert (answer.status_code, problem["type"]) == (status, f"urn:everlease:problem:{slug}"), problem
    assert answer.headers["content-type"] == "application/problem+json"
    assert "\n" not in problem["detail"]


def test_an_order_signed_for_another_chain_or_contract_is_refused(tenant: httpx.Client, market: Market) -> None:
    body = job_body(market)
    ours = market.deployment
    for other in (replace(ours, chain_id=1), replace(ours, escrow="0x" + "22" * 20)):
        foreign = replace(market, deployment=other)
        body["order_signature"] = job_body(foreign)["order_signature"]
        problem = tenant.post("/v1/jobs", json=body).json()
        assert problem["type"].endswith("wrong-order-signature")
        assert "31337" in problem["detail"]


def test_an_allowance_that_is_to_pay_is_checked(tenant: httpx.Client, market: Market) -> None:
    body = {**job_body(market), "funding": "allowance"}
    refused = tenant.post("/v1/jobs", json=body)
    assert refused.json()["type"].endswith("deposit-above-allowance")
    market.send(market.tenant, market.asset.approve(market.deployment.escrow, 5 * DOLLAR))
    assert tenant.post("/v1/jobs", json=body).status_code == 201


def test_an_order_pays_what_a_lease_costs_the_watcher(service: Service, market: Market) -> None:
    request, parts = JobRequest.model_validate(job_body(market)), service.parts

    def check(min_epoch_fee: int) -> None:
        desk = OrderDesk(parts.deployment, parts.chain, market.watcher.address, min_epoch_fee)
        desk.check(request, market.tenant.address, time.time())

    check(request.order.epoch_fee)
    with pytest.raises(ProblemError, match="is asked for each lease") as refused:
        check(request.order.epoch_fee + 1)
    assert refused.value.slug == "epoch-fee-too-small"


@pytest.mark.parametrize(
    ("path", "value", "word"),
    [
        (("name",), "Bad Name", "name"),
        (("image_digest",), "sha256:xyz", "image_digest"),
        (("resources", "memory_bytes"), 1, "memory_bytes"),
        (("checkpoint", "min_interval_s"), 300, "shorter than max_lost_work"),
        (("env",), {"EVERLEASE_RESUME": "1"}, "reserved"),
        (("command",), ["x" * 70_000], "command"),
    ],
)
def test_a_wrong_spec_gets_one_sentence(
    tenant: httpx.Client, market: Market, path: tuple[str, ...], value: Any, word: str
) -> None:
    body = job_body(market)
    body["spec"] = copy.deepcopy(SPEC)
    place = body["spec"]
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    answer = tenant.post("/v1/jobs", json=body)
    assert answer.status_code == 422
    assert word in answer.json()["detail"]


def test_files_only_fallback_contradicts_process_mode(tenant: httpx.Client, market: Market) -> None:
    body = job_body(market)
    body["spec"] = copy.deepcopy(SPEC)
    body["spec"]["checkpoint"] |= {"mode": "process", "fall_back_to_files": True}
    assert "contradicts" in tenant.post("/v1/jobs", json=body).json()["detail"]


def test_an_order_names_an_image_that_is_in_the_store(tenant: httpx.Client, market: Market, tmp_path: Path) -> None:
    grant = tenant.post("/v1/store/tokens").json()
    store = HttpBlockStore(grant["store_url"], lambda: grant["store_token"])
    file = tmp_path / "image.tar"
    file.write_bytes(b"an image")
    plain = upload_plain(store, file)
    nonsense = put_block(store, b'{"blocks":[],"sha256":"","size":1e999,"version":1}')
    listed = f'{{"blocks":[["{cid_of(b"absent")}",6]],"sha256":"{"0" * 64}","size":6,"version":1}}'
    hollow = put_block(store, listed.encode())
    store.close()
    body = job_body(market)
    for image, size, slug in (
        (cid_of(b"never uploaded"), 8, "image-not-stored"),
        (nonsense, 8, "image-invalid"),
        (plain.cid, 9, "image-invalid"),
        (hollow, 6, "image-not-stored"),
    ):
        answer = tenant.post("/v1/jobs", json={**body, "image_manifest": image, "image_bytes": size})
        assert (answer.status_code, answer.json()["type"]) == (422, f"urn:everlease:problem:{slug}")
    answer = tenant.post("/v1/jobs", json={**body, "image_manifest": plain.cid, "image_bytes": 8})
    assert answer.status_code == 201, answer.text


def test_others_jobs_do_not_exist(service: Service, market: Market, job_id: str) -> None:
    with_key = service.client(key(6))
    for path in ("", "/leases", "/checkpoints", "/cost", "/logs", "/events", "/outputs?public_key=x"):
        assert with_key.get(f"/v1/jobs/{job_id}{path}").status_code in (404, 422), path
    assert with_key.get(f"/v1/jobs/{job_id}").json()["type"].endswith("unknown-job")
    assert with_key.post(f"/v1/jobs/{job_id}/cancel").status_code == 404
    assert with_key.get("/v1/jobs").json()["items"] == []
    assert with_key.get("/v1/jobs/nonsense").status_code == 404
    with_key.close()
    with service.client() as anonymous:
        assert anonymous.get(f"/v1/jobs/{job_id}").status_code == 401


def test_pages_are_complete_and_in_order(tenant: httpx.Client, market: Market) -> None:
    made = [tenant.post("/v1/jobs", json=job_body(market, nonce=number)).json()["id"] for number in range(5)]
    seen: list[str] = []
    cursor = None
    while True:
        page = tenant.get("/v1/jobs", params={"limit": 2, **({"cursor": cursor} if cursor else {})}).json()
        seen += [item["id"] for item in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == made[::-1]
    assert tenant.get("/v1/jobs", params={"cursor": "bm9uc2Vuc2U"}).status_code == 422


def test_an_idempotency_key_repeats_the_first_answer(tenant: httpx.Client, market: Market) -> None:
    headers = {"Idempotency-Key": "launch-0001"}
    first = tenant.post("/v1/jobs", json=job_body(market, nonce=1), headers=headers)
    other = tenant.post("/v1/jobs", json=job_body(market, nonce=2), headers=headers)
    assert first.status_code == 201
    assert other.status_code == 422
    assert other.json()["type"].endswith("idempotency-key-reused")
    job_id = first.json()["id"]
    for _ in range(2):
        answer = tenant.post(
            f"/v1/jobs/{job_id}/top-ups", json={"amount": 5}, headers={"Idempotency-Key": "topup-0001"}
        )
        assert answer.json()["args"] == [job_id, 5]
    kinds = [item["kind"] for item in tenant.get(f"/v1/jobs/{job_id}/events").json()["items"]]
    assert kinds.count("job.top_up_asked") == 1


def test_wishes_follow_the_state_table(service: Service, tenant: httpx.Client, job_id: str) -> None:
    refused = tenant.post(f"/v1/jobs/{job_id}/migrate")
    assert refused.status_code == 409
    assert "PENDING" in refused.json()["detail"]
    with service.db.transaction() as tx:
        row = jobs.lock(tx, job_id)
        row.state = JobState.RUNNING.value
    assert tenant.post(f"/v1/jobs/{job_id}/migrate", json={"reason": "closer"}).json()["wish"] == "migrate"
    assert tenant.post(f"/v1/jobs/{job_id}/migrate").status_code == 202
    assert tenant.post(f"/v1/jobs/{job_id}/hibernate").status_code == 409
    assert tenant.post(f"/v1/jobs/{job_id}/cancel").json()["wish"] == "cancel"
    with service.db.transaction() as tx:
        row = jobs.lock(tx, job_id)
        row.wish = None
        jobs.apply_event(tx, row, JobEvent.CANCEL_REQUESTED)
        jobs.apply_event(tx, row, JobEvent.STOPPED)
    assert tenant.post(f"/v1/jobs/{job_id}/cancel").status_code == 202
    assert "ended" in tenant.post(f"/v1/jobs/{job_id}/checkpoint").json()["detail"]


def test_cost_before_and_after_funding(service: Service, tenant: httpx.Client, market: Market, job_id: str) -> None:
    assert tenant.get(f"/v1/jobs/{job_id}/cost").json()["balance"] == 0
    assert tenant.get(f"/v1/jobs/{job_id}").json()["limits"] is None
    mirror_escrow(service.db, market, job_id)
    cost = tenant.get(f"/v1/jobs/{job_id}/cost").json()
    assert (cost["balance"], cost["refundable"], cost["runs_for_s"]) == (5 * DOLLAR, 5 * DOLLAR, None)
    with service.db.transaction() as tx:
        row = tx.get_one(EscrowRow, job_id)
        row.epochs, row.max_epochs, row.deadline, row.max_rate_per_hour = 3, 30, 2_000_000_000, DOLLAR
    job = tenant.get(f"/v1/jobs/{job_id}").json()
    assert job["funded"] is True
    extended = {"deadline": 2_000_000_000, "leases": 3, "max_leases": 30, "max_rate_per_hour": DOLLAR}
    assert job["limits"] == extended, "as the escrow has them, not as the order was signed"


def read_stream(client: httpx.Client, path: str, stop: str, **headers: str) -> list[tuple[int, str]]:
    """(id, data) of server-sent events until one whose data contains ``stop``."""
    found: list[tuple[int, str]] = []
    with client.stream("GET", path, headers={"Accept": "text/event-stream", **headers}) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        number = 0
        for line in answer.iter_lines():
            if line.startswith("id: "):
                number = int(line[4:])
            elif line.startswith("data: "):
                found.append((number, line[6:]))
                if stop in line:
                    return found
    return found


def test_a_log_stream_goes_on_where_it_stopped(service: Service, tenant: httpx.Client, job_id: str) -> None:
    def write(offset: int, text: str) -> None:
        with service.db.transaction() as tx:
            logs.append(tx, job_id, 1, "stdout", offset, text)

    write(0, "one\n")
    write(4, "two\n")
    first = read_stream(tenant, f"/v1/jobs/{job_id}/logs", "two")
    write(8, "three\n")
    write(8, "three\n")
    rest = read_stream(tenant, f"/v1/jobs/{job_id}/logs", "three", **{"Last-Event-ID": str(first[-1][0])})
    assert len(first) == 2
    assert len(rest) == 1
    tail = read_stream(tenant, f"/v1/jobs/{job_id}/logs?tail=1", "three")
    assert tail == rest
    page = tenant.get(f"/v1/jobs/{job_id}/logs", params={"limit": 2}).json()
    assert [item["text"] for item in page["items"]] == ["one\n", "two\n"]
    assert tenant.get(f"/v1/jobs/{job_id}/logs", params={"after": page["next_id"]}).json()["items"][0]["offset"] == 8


def test_output_that_comes_again_in_other_pieces_is_kept_once(
    service: Service, tenant: httpx.Client, job_id: str
) -> None:
    """An agent that was killed before it noted our answer reads its last lines again, and more with them."""
    with service.db.transaction() as tx:
        for offset, text in ((0, "one\n"), (0, "one\ntwo\n"), (4, "two\n"), (0, "on"), (4, "two\nthree\n")):
            logs.append(tx, job_id, 1, "stdout", offset, text)
        logs.append(tx, job_id, 1, "stdout", 2**63 - 1, "a host may say what it likes")
    items = tenant.get(f"/v1/jobs/{job_id}/logs").json()["items"]
    assert [(item["offset"], item["text"]) for item in items][:3] == [(0, "one\n"), (4, "two\n"), (8, "three\n")]


def test_an_event_stream_is_woken_by_news_and_ends_with_the_job(
    service: Service, tenant: httpx.Client, job_id: str
) -> None:
    def later() -> None:
        time.sleep(0.5)
        with service.db.transaction() as tx:
            row = jobs.lock(tx, job_id)
            jobs.apply_event(tx, row, JobEvent.GAVE_UP, "the test says so")

    writer = threading.Thread(target=later)
    writer.start()
    found = read_stream(tenant, f"/v1/jobs/{job_id}/events", "never")
    writer.join()
    assert "job.created" in found[0][1]
    assert any("the test says so" in data for _, data in found)
    after = {"Accept": "text/event-stream", "Last-Event-ID": str(found[-1][0])}
    assert tenant.get(f"/v1/jobs/{job_id}/events", headers=after).status_code == 204


def test_errors_are_problems_and_headers_are_safe(service: Service, tenant: httpx.Client) -> None:
    with service.client() as client:
        missing = client.get("/v1/nowhere")
        assert missing.json()["status"] == 404
        assert missing.headers["x-content-type-options"] == "nosniff"
        huge = client.post("/v1/auth/verify", content=b"x" * (service.settings.max_body_bytes + 1))
        assert huge.status_code == 413
        document = client.get("/openapi.json").json()
        assert "/v1/jobs/{job_id}/{wish}" in document["paths"]
        assert client.get("/").json()["market"] == "/v1/market"
    market = tenant.get("/v1/market").json()
    assert market["chain_id"] == 31337
    assert market["store_url"].endswith("/store")
    assert market["reserve"] == {
        "posted_cpu": 100_000, "posted_gib": 20_000, "posted_gpu": 1_000_000, "rounds": 10, "rise_s": 60.0,
        "rise_in_recovery_s": 5.0, "least_providers": 5, "window_days": 90,
    }  # fmt: skip


def test_health_readiness_and_metrics(service: Service) -> None:
    with service.client() as client:
        assert client.get("/healthz").json() == {"status": "ok"}
        ready = client.get("/readyz")
        assert (ready.status_code, ready.json()["checks"]) == (
            200,
            {"database": "ok", "master key": "ok", "store": "ok", "chain": "ok"} | dict.fromkeys(TASKS, "ok"),
        )
        metrics = client.get("/metrics").text
        assert "everlease_http_requests_total" in metrics
        assert "everlease_loop_lag_seconds_count" in metrics
        assert 'everlease_task_up{task="listener"} 1.0' in metrics
        assert client.get("/store/healthz").status_code == 200


def test_the_store_takes_the_tokens_that_we_hand_out(tenant: httpx.Client) -> None:
    granted = tenant.post("/v1/store/tokens").json()
    store = HttpBlockStore(granted["store_url"], lambda: granted["store_token"])
    cid = put_block(store, b"an image's block")
    assert get_block(store, cid) == b"an image's block"
    store.close()


def test_jobs_without_a_deposit_are_few(service: Service, tenant: httpx.Client, market: Market) -> None:
    """Announcing costs nothing: a tenant must not be able to fill the database with it."""
    most = service.settings.max_pending_jobs
    first = tenant.post("/v1/jobs", json=job_body(market, nonce=1)).json()
    refused = None
    for number in range(2, most + 2):
        refused = tenant.post("/v1/jobs", json=job_body(market, nonce=number))
    assert refused is not None
    assert (refused.status_code, refused.json()["type"]) == (429, "urn:everlease:problem:too-many-pending-jobs")
    assert tenant.post("/v1/jobs", json=job_body(market, nonce=1)).json()["id"] == first["id"]
