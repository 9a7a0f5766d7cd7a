"""Logs, notices, probes, tokens, drain."""

import threading
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import text
from websockets.exceptions import ConnectionClosed

from everlease.db.models.jobs import AwardRow
from everlease.db.models.mirror import NodeAuthRow
from everlease.wire.node import from_node
from marketplace.gateway import endpoint
from marketplace.gateway.endpoint import LIGHT_CHARACTERS
from provider_agent.logs import CHUNK_BYTES
from tests.support.deployed import Market, key
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


def test_a_node_that_never_had_a_job_says_nothing_long(service: Service, node: FakeNode, job_id: str) -> None:
    node.connect()
    node.send("log", job_id=job_id, fence=1, stream="stdout", offset=0, text="x" * (LIGHT_CHARACTERS - 1000))
    assert node.expect("refusal").of == "log"
    node.send("log", job_id=job_id, fence=1, stream="stdout", offset=0, text="x" * LIGHT_CHARACTERS)
    with pytest.raises(ConnectionClosed) as ended:
        node.socket.recv(10)
    assert ended.value.rcvd is not None
    assert ended.value.rcvd.code == 1009


def test_a_node_may_say_much_as_soon_as_it_has_a_job_and_afterwards(
    service: Service, node: FakeNode, job_id: str
) -> None:
    """The first commit comes right after Start; the last may wait at the node until it is connected again."""
    node.connect()
    held = award(service, node, job_id)
    node.send("log", job_id=job_id, fence=held.fence, stream="stdout", offset=0, text="x" * 2 * LIGHT_CHARACTERS)
    node.beat()
    end(service, held, seconds_ago=3600)
    node.close()
    node.connect()
    node.send("log", job_id=job_id, fence=held.fence, stream="stdout", offset=0, text="x" * 2 * LIGHT_CHARACTERS)
    assert node.expect("refusal").of == "log"
    node.beat()


def test_nodes_that_never_had_a_job_do_not_hold_up_those_that_have(
    service: Service, market: Market, node: FakeNode, job_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While one's message takes long to read, another's output goes on."""
    other = FakeNode(service, market, key(7), market.provider)
    with service.db.transaction() as tx:
        tx.add(NodeAuthRow(node=other.key.address, provider=market.provider.address, active=True, block=1))
    other.connect()
    node.connect()
    held = award(service, node, job_id)
    go_on, reading = threading.Event(), threading.Event()

    class Slow:
        def validate_json(self, said: str) -> Any:
            if "costly" in said:
                reading.set()
                go_on.wait(20)
            return from_node.validate_json(said)

    monkeypatch.setattr(endpoint, "from_node", Slow())
    try:
        other.send("facts", facts={"costly": "x" * 30_000})
        assert reading.wait(10)
        began = time.monotonic()
        node.send("log", job_id=job_id, fence=held.fence, stream="stdout", offset=0, text="x" * CHUNK_BYTES)
        node.send("log", job_id=job_id, fence=held.fence, stream="stdout", offset=CHUNK_BYTES, text="x" * 200_000)
        node.beat()
        assert time.monotonic() - began < 4
    finally:
        go_on.set()
        other.close()
