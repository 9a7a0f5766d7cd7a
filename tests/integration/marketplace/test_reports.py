"""Logs, notices, probes, tokens, drain."""

from datetime import UTC, datetime, timedelta

import httpx
import pytest
from sqlalchemy import text

from everlease.db.models.jobs import AwardRow
from tests.support.deployed import key
from tests.support.gateway import award, open_auction, topics
from tests.support.marketplace import FakeNode, Service, make_award

pytestmark = pytest.mark.anvil


def test_logs_notices_probe_tokens_and_drain(
    service: Service, node: FakeNode, job_id: str, tenant: httpx.Client
) -> None:
    node.connect()
    held = award(service, node, job_id)
    for _ in range(2):
        node.send("log", job_id=job_id, fence=held.fence, stream="stdout", offset=0, text="step 1\n")
    node.send("log", job_id=job_id, fence=held.fence, stream="stderr", offset=0, text="a\x00b")
    node.send("log", job_id=job_id, fence=held.fence, stream="stderr", offset=3, text="cd")
    node.send("notice", job_id=job_id, fence=held.fence, kind="trial_dump", detail="fine", data={"pause_s": 0.1})
    node.send("token_request", request="r1", job_id=job_id, fence=held.fence)
    grant = node.expect("token_grant")
    assert (grant.ok, grant.request) == (True, "r1")
    items = tenant.get(f"/v1/jobs/{job_id}/logs").json()["items"]
    assert [item["text"] for item in items] == ["step 1\n", "a\x1ab", "cd"], "a NUL is one byte to both sides"
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


def test_last_words_have_a_time_and_an_amount(
    service: Service, node: FakeNode, job_id: str, tenant: httpx.Client
) -> None:
    """A host that left in order may end its log. It can't push the lines of the host after it out of it."""
    node.connect()
    held = award(service, node, job_id)
    node.send("log", job_id=job_id, fence=held.fence, stream="stdout", offset=0, text="while it ran\n")
    node.beat()
    end(service, held, seconds_ago=1)
    node.send("log", job_id=job_id, fence=held.fence, stream="stdout", offset=13, text="the last line\n")
    node.beat()
    for number in range(5):
        node.send("log", job_id=job_id, fence=held.fence, stream="stderr", offset=number << 18, text="x" * (1 << 18))
    assert "enough was said" in node.expect("refusal").reason
    node.beat()
    kept = tenant.get(f"/v1/jobs/{job_id}/logs").json()["items"]
    assert sum(len(item["text"]) for item in kept) <= 27 + service.settings.late_log_bytes
    assert [item["text"] for item in kept[:2]] == ["while it ran\n", "the last line\n"]
    end(service, held, seconds_ago=service.settings.late_grace + 1)
    node.send("log", job_id=job_id, fence=held.fence, stream="stdout", offset=27, text="much later\n")
    assert "ended 6" in node.expect("refusal").reason
    node.send("notice", job_id=job_id, fence=held.fence, kind="progress")
    assert node.expect("refusal").of == "notice"
    node.send("receipt_request", job_id=job_id, fence=held.fence, lease_id=held.lease_id)
    assert node.expect("receipts").receipts == [], "asking is no last word"


def test_a_host_that_was_shut_out_can_say_a_few_times_that_it_froze_itself(
    service: Service, node: FakeNode, job_id: str
) -> None:
    node.connect()
    held = award(service, node, job_id)
    make_award(service.db, job_id, key(6), node.provider, epoch=2)
    end(service, held, seconds_ago=3600)
    for _ in range(20):
        node.send("notice", job_id=job_id, fence=held.fence, kind="fenced", detail="froze itself")
    assert "enough was said" in node.expect("refusal").reason
    node.beat()
    assert topics(service).count("node.notice") == 16


def end(service: Service, held: AwardRow, seconds_ago: float) -> None:
    with service.db.transaction() as tx:
        row = tx.get_one(AwardRow, held.id)
        row.ended_at = datetime.now(UTC) - timedelta(seconds=seconds_ago)
        row.outcome = row.outcome or "migrated"
