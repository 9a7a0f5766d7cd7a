"""Who may connect, and what a reconnect confirms."""

import threading
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from everlease.chain.keys import Key
from everlease.chain.views import Views
from everlease.db import nodes
from everlease.db.models.mirror import NodeAuthRow
from marketplace.gateway import admission, greeting
from marketplace.gateway.session import REFUSED, SLOW
from marketplace.networks import Bucket
from tests.support.deployed import Market, key
from tests.support.gateway import award, topics
from tests.support.marketplace import FakeNode, Service, make_award, mirror_stake
from tests.support.waiting import wait_for

pytestmark = pytest.mark.anvil


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
        row = nodes.get(tx, node.key.address)
        assert row is not None
        assert nodes.mark_lost(tx, row.address, row.last_seen)
    assert node.connect().resume_after_s == service.settings.shun_base_s


def test_the_networks_of_staked_nodes_are_known(service: Service, market: Market, node: FakeNode) -> None:
    """Places are kept for them; the network of a node with next to no stake is anybody's."""

    def known() -> frozenset[str]:
        return greeting.Greeter(service.parts)._known_networks()

    node.connect()
    assert known() == {"127.0.0.1"}
    for staked in (0, 1, service.settings.suggested_min_collateral - 1):
        mirror_stake(service.db, market.provider, staked=staked)
        assert known() == frozenset()
    mirror_stake(service.db, market.provider, staked=service.settings.suggested_min_collateral)
    assert known() == {"127.0.0.1"}
    with service.db.transaction() as tx:
        row = nodes.get(tx, node.key.address)
        assert row is not None
        row.last_seen = datetime.now(UTC) - timedelta(days=8)
    assert known() == frozenset()


def mirror_authority(service: Service, market: Market) -> None:
    with service.db.transaction() as tx:
        tx.merge(NodeAuthRow(node=market.node.address, provider=market.provider.address, active=True, block=1))


def test_keys_that_nobody_authorised_wait_their_turn_for_the_chain(
    service: Service, market: Market, node: FakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Bucket, "take", lambda self, now: self._most != greeting._MOST_LOOKS)
    with pytest.raises(ConnectionClosed) as ended:
        FakeNode(service, market, key(6), market.provider).connect()
    assert ended.value.rcvd is not None
    assert ended.value.rcvd.code == SLOW
    mirror_authority(service, market)
    node.connect()


def test_a_chain_that_hangs_keeps_out_only_nodes_that_the_mirror_does_not_know(
    service: Service, market: Market, node: FakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror_authority(service, market)
    go_on, refused = threading.Event(), []

    def hangs(*_: object) -> None:
        go_on.wait(20)

    def come(number: int) -> None:
        with pytest.raises(ConnectionClosed) as ended:
            FakeNode(service, market, Key.of(bytes([number]) * 32), market.provider).connect()
        assert ended.value.rcvd is not None
        refused.append(ended.value.rcvd.code)

    monkeypatch.setattr(Views, "provider_of", hangs)
    strangers = [threading.Thread(target=come, args=(number,)) for number in (6, 7, 8, 9)]
    try:
        for stranger in strangers:
            stranger.start()
        time.sleep(1)
        began = time.monotonic()
        node.connect()
        assert time.monotonic() - began < 2
    finally:
        go_on.set()
        for stranger in strangers:
            stranger.join()
    assert sorted(refused) == [SLOW, SLOW, REFUSED, REFUSED]


def test_a_hello_whose_sender_left_admits_nobody(
    service: Service, node: FakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked: list[object] = []
    go_on = threading.Event()
    really = admission.check_signature

    def slow(*arguments: Any) -> Any:
        checked.append(arguments)
        go_on.wait(20)
        return really(*arguments)

    monkeypatch.setattr(admission, "check_signature", slow)
    nodes_ = [FakeNode(service, node.market, node.key, node.provider) for _ in range(4)]
    try:
        for it in nodes_:
            it.say_hello()
        time.sleep(0.5)
        assert len(checked) == 2, "strangers have two turns"
        for it in nodes_:
            it.socket.close()
        time.sleep(0.5)
    finally:
        go_on.set()
    wait_for(lambda: service.parts.metrics.greeting._value.get() == 0)
    time.sleep(0.5)
    assert len(checked) == 2
    with service.db.transaction() as tx:
        row = nodes.get(tx, node.key.address)
        assert row is None or row.disconnected_at is not None
