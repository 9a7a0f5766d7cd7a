"""Logs, notices, probes, tokens, drain."""

import httpx
import pytest
from sqlalchemy import text

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
