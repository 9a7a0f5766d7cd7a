"""Sign-in with Ethereum against a served marketplace."""

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from tests.support.deployed import Market, key
from tests.support.marketplace import Service, sign_in_message

pytestmark = pytest.mark.anvil


def iso(at: datetime) -> str:
    return at.isoformat(timespec="seconds").replace("+00:00", "Z")


def test_a_token_speaks_for_its_address_until_it_is_revoked(tenant: httpx.Client, market: Market) -> None:
    assert tenant.get("/v1/auth/session").json() == {"address": market.tenant.address}
    (item,) = tenant.get("/v1/auth/tokens").json()["items"]
    assert tenant.delete(f"/v1/auth/tokens/{item['id']}").status_code == 204
    refused = tenant.get("/v1/auth/session")
    assert (refused.status_code, refused.headers["content-type"]) == (401, "application/problem+json")


def test_a_message_counts_once(service: Service, market: Market) -> None:
    with service.client() as client:
        message, signature = sign_in_message(client, market.tenant)
        body = {"message": message, "signature": signature}
        assert client.post("/v1/auth/verify", json=body).status_code == 200
        again = client.post("/v1/auth/verify", json=body)
    assert again.status_code == 401
    assert "used before" in again.json()["detail"]


@pytest.mark.parametrize(
    ("spoil", "word"),
    [
        ({"domain": "evil.example"}, "evil.example"),
        ({"uri": "http://evil.example"}, "URI"),
        ({"chain_id": 1}, "chain 1"),
        ({"nonce": "abcdefgh12345678"}, "nonce"),
        ({"expiration_time": iso(datetime.now(UTC) - timedelta(seconds=5))}, "expired"),
        ({"not_before": iso(datetime.now(UTC) + timedelta(hours=1))}, "not valid yet"),
        ({"issued_at": iso(datetime.now(UTC) - timedelta(hours=1))}, "ten minutes"),
    ],
)
def test_what_is_not_meant_for_us_is_refused(
    service: Service, market: Market, spoil: dict[str, Any], word: str
) -> None:
    with service.client() as client:
        message, signature = sign_in_message(client, market.tenant, **spoil)
        answer = client.post("/v1/auth/verify", json={"message": message, "signature": signature})
    assert answer.status_code == 401
    assert word in answer.json()["detail"]


def test_a_strangers_signature_is_refused_and_burns_no_nonce(service: Service, market: Market) -> None:
    with service.client() as client:
        message, signature = sign_in_message(client, market.tenant)
        _, other = sign_in_message(client, key(6))
        wrong = client.post("/v1/auth/verify", json={"message": message, "signature": other})
        assert wrong.status_code == 401
        assert client.post("/v1/auth/verify", json={"message": message, "signature": signature}).status_code == 200


def test_a_cookie_needs_our_own_origin_on_unsafe_methods(service: Service, market: Market) -> None:
    with service.client() as client:
        message, signature = sign_in_message(client, market.tenant)
        body = {"message": message, "signature": signature, "cookie": True}
        answer = client.post("/v1/auth/verify", json=body)
        cookie = answer.headers["set-cookie"]
        assert answer.json()["token"] == ""
        assert "HttpOnly" in cookie
        assert "samesite=strict" in cookie.lower()
        assert client.get("/v1/auth/session").status_code == 200
        assert client.post("/v1/store/tokens").status_code == 403
        assert client.post("/v1/store/tokens", headers={"Origin": "http://evil.example"}).status_code == 403
        assert client.post("/v1/store/tokens", headers={"Origin": service.settings.origin}).status_code == 200
        assert client.post("/v1/auth/sign-out", headers={"Origin": service.settings.origin}).status_code == 204
        assert client.get("/v1/auth/session").status_code == 401
