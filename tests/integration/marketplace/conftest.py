"""A served marketplace on real PostgreSQL and Anvil, with a staked provider and its node."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.deployed import Market
from tests.support.marketplace import FakeNode, Service, job_body, make_settings, mirror_stake, served

pytestmark = pytest.mark.anvil


@pytest.fixture
def service(market: Market, postgres_url: str, tmp_path: Path) -> Iterator[Service]:
    with served(make_settings(market, postgres_url, tmp_path)) as running:
        yield running


@pytest.fixture
def tenant(service: Service, market: Market) -> Iterator[httpx.Client]:
    client = service.client(market.tenant)
    yield client
    client.close()


@pytest.fixture
def node(service: Service, market: Market) -> Iterator[FakeNode]:
    market.stake()
    mirror_stake(service.db, market.provider)
    node = FakeNode(service, market, market.node, market.provider)
    yield node
    if hasattr(node, "socket"):
        node.close()


@pytest.fixture
def job_id(tenant: httpx.Client, market: Market) -> str:
    answer = tenant.post("/v1/jobs", json=job_body(market))
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])
