"""Bids: what is signed, and each reason not to bid."""

import time
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everlease.chain.keys import Key
from everlease.chain.typed_data import Domain, bid_digest, job_id, order_digest, recover
from everlease.domain.auction import LONGEST_BID_S
from everlease.domain.jobspec import CheckpointMode, CheckpointPolicy, JobSpec, Resources, spec_hash
from everlease.domain.silence import LEAST_SILENCE_S
from everlease.domain.terms import Order
from everlease.wire.node import CallForBids
from everlease.wire.terms import OrderModel
from provider_agent import bidding
from provider_agent.clock import SystemClock
from provider_agent.host import Host
from provider_agent.journal import Journal
from provider_agent.settings import AgentSettings

DOMAIN = Domain(31337, "0x" + "e5" * 20)
TENANT, WATCHER, NODE = (Key.of(bytes([n]) * 32) for n in (1, 2, 3))
SPEC = JobSpec(
    name="job",
    image="image",
    image_digest="sha256:" + "00" * 32,
    command=("true",),
    resources=Resources(gpus=0, cpu_millis=500, memory_bytes=1 << 30, disk_bytes=1 << 20),
    checkpoint=CheckpointPolicy(CheckpointMode.PROCESS, 300, 10),
    max_recoveries=3,
)
ORDER = Order(
    tenant=TENANT.address,
    watcher=WATCHER.address,
    job_spec=spec_hash(SPEC),
    max_rate_per_hour=10**6,
    deposit=10**6,
    min_collateral=10**6,
    max_silence=6,
    max_epochs=5,
    epoch_fee=0,
    deadline=int(time.time()) + 86_400,
    nonce=1,
)


class Networks:
    """Docker's list of networks."""

    def __init__(self, subnets: list[str]) -> None:
        self._subnets = subnets

    def list(self) -> list[Any]:
        return [SimpleNamespace(name="x", attrs={"IPAM": {"Config": [{"Subnet": s}]}}) for s in self._subnets]


@pytest.fixture
def host(tmp_path: Path) -> Host:
    settings = AgentSettings(
        data_dir=tmp_path,
        gateway_url="ws://localhost",
        store_url="http://localhost",
        deployments=tmp_path,
        provider="0x" + "aa" * 20,
        watchers=[WATCHER.address],
        disk_reserve_bytes=0,
    )
    runtime = {"process_mode": True, "other_users": True, "reason": ""}
    facts = {"cores": 2, "memory_bytes": 4 << 30, "gpus": [], "runtime": runtime}
    engine = SimpleNamespace(client=SimpleNamespace(networks=Networks([])), images=SimpleNamespace(find=lambda _: None))
    found = SimpleNamespace(
        settings=settings,
        facts=facts,
        engine=engine,
        identity=SimpleNamespace(provider=settings.provider, key=NODE),
        chain_id=DOMAIN.chain_id,
        escrow=DOMAIN.contract,
        journal=Journal(tmp_path / "journal.db"),
        clock=SystemClock(),
        free_disk=lambda: 1 << 40,
    )
    return cast("Host", found)


def call(order: Order = ORDER, spec: JobSpec = SPEC, /, **changes: Any) -> CallForBids:
    fields: dict[str, Any] = {
        "seq": 1,
        "auction_id": 7,
        "order": OrderModel.from_domain(order),
        "order_hash": job_id(DOMAIN, order),
        "order_signature": TENANT.sign(order_digest(DOMAIN, order)),
        "spec": asdict(spec),
        "epoch": 2,
        "closes_in_s": 1.0,
        "bids_until": int(time.time()) + 300,
        "image_digest": spec.image_digest,
    }
    return CallForBids(**{**fields, **changes})


def test_a_bid_is_signed_remembered_and_used_once(host: Host) -> None:
    first, second = bidding.consider(host, call()), bidding.consider(host, call())
    bid = first.signed.bid.to_domain()
    assert recover(bid_digest(DOMAIN, bid), first.signed.signature) == NODE.address
    assert bid.epoch == 2
    assert bid.min_rate_per_hour == bidding.price(host.settings, SPEC)
    assert bid.slot != second.signed.bid.slot
    assert [kept.order.job_spec for kept in host.journal.bids(bid.order_hash)] == [ORDER.job_spec] * 2
    assert first.missing_bytes == bidding.UNKNOWN_IMAGE_BYTES


def test_a_bid_is_good_for_as_long_as_the_call_asks_but_binds_no_longer_than_the_host_allows(host: Host) -> None:
    until = int(time.time()) + LONGEST_BID_S
    assert bidding.consider(host, call(bids_until=until)).signed.bid.deadline == until
    with pytest.raises(bidding.Declined, match="would have to be good for"):
        bidding.consider(host, call(bids_until=until + 60))


def test_an_order_in_whose_silence_three_receipts_do_not_fit_is_declined(host: Host) -> None:
    assert bidding.consider(host, call(replace(ORDER, max_silence=LEAST_SILENCE_S)))
    with pytest.raises(bidding.Declined, match="three receipts, must fit"):
        bidding.consider(host, call(replace(ORDER, max_silence=LEAST_SILENCE_S - 1)))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"order_hash": "0x" + "00" * 32}, "hash"),
        ({"order_signature": "0x" + "11" * 65}, "signed"),
        ({"spec": {}}, "malformed"),
        ({"spec": asdict(replace(SPEC, name="other"))}, "signed order"),
    ],
)
def test_a_call_that_is_not_the_tenants_is_declined(host: Host, changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(bidding.Declined, match=reason):
        bidding.consider(host, call(**changes))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"watcher": TENANT.address}, "watcher"),
        ({"deadline": 1}, "expired"),
        ({"max_rate_per_hour": 1}, "pays at most"),
        ({"min_collateral": 10**12}, "collateral"),
    ],
)
def test_an_order_on_other_terms_is_declined(host: Host, changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(bidding.Declined, match=reason):
        bidding.consider(host, call(replace(ORDER, **changes)))


@pytest.mark.parametrize(
    ("resources", "reason"),
    [
        ({"cpu_millis": 4000}, "CPUs"),
        ({"memory_bytes": 1 << 40}, "memory"),
        ({"disk_bytes": 1 << 45}, "disk"),
        ({"gpus": 1}, "GPUs"),
    ],
)
def test_a_job_that_does_not_fit_is_declined(host: Host, resources: dict[str, int], reason: str) -> None:
    spec = replace(SPEC, resources=replace(SPEC.resources, **resources))
    order = replace(ORDER, job_spec=spec_hash(spec), max_rate_per_hour=10**12)
    with pytest.raises(bidding.Declined, match=reason):
        bidding.consider(host, call(order, spec))


def test_a_host_without_criu_declines_what_insists_on_processes(host: Host) -> None:
    host.facts["runtime"].update(process_mode=False, reason="CRIU is missing")
    with pytest.raises(bidding.Declined, match="CRIU"):
        bidding.consider(host, call())
    policy = CheckpointPolicy(CheckpointMode.AUTO, 300, 10, fall_back_to_files=True)
    spec = replace(SPEC, checkpoint=policy)
    assert bidding.consider(host, call(replace(ORDER, job_spec=spec_hash(spec)), spec))


@pytest.mark.parametrize(("user", "taken"), [("1000", False), ("", False), ("root", True), ("0:0", True)])
def test_a_host_that_was_proved_for_root_alone_declines_what_another_user_may_run(
    host: Host, user: str, taken: bool
) -> None:
    host.facts["runtime"].update(other_users=False, reason="programs run by another user can't be checkpointed here")
    spec = replace(SPEC, user=user)
    asked = call(replace(ORDER, job_spec=spec_hash(spec)), spec)
    if taken:
        assert bidding.consider(host, asked)
    else:
        with pytest.raises(bidding.Declined, match="another"):
            bidding.consider(host, asked)


def test_a_taken_subnet_is_declined(host: Host) -> None:
    cast("Any", host.engine).client.networks = Networks(["100.64.0.0/10"])
    with pytest.raises(bidding.Declined, match="subnet"):
        bidding.consider(host, call())


@given(st.lists(st.sampled_from(["10.0.0.0/8", "fd00::/64", "172.17.0.0/16"])))
def test_other_networks_do_not_overlap(taken: list[str]) -> None:
    assert not bidding.overlaps("100.64.8.0/29", taken)
    assert bidding.overlaps("100.64.8.0/29", [*taken, "100.64.8.4/30"])


@given(cpus=st.integers(1, 10**6), memory=st.integers(1, 1 << 45), gpus=st.integers(0, 64))
def test_more_resources_never_cost_less(cpus: int, memory: int, gpus: int) -> None:
    settings = AgentSettings.model_construct(base_rate=1, cpu_rate=7, gib_rate=3, gpu_rate=11)
    small = replace(SPEC, resources=Resources(gpus, cpus, memory, 1))
    large = replace(SPEC, resources=Resources(gpus + 1, cpus + 1000, memory + (1 << 30), 1))
    assert bidding.price(settings, small) + 7 + 3 + 11 <= bidding.price(settings, large) + 1
