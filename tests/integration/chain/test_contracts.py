"""Calls, views, digests, events and errors against the deployed contracts."""

from dataclasses import fields
from pathlib import Path

import pytest

from everlease.chain import abi, typed_data
from everlease.chain._generated.events import JobFunded, LeaseOpened
from everlease.chain.contracts import sign_permit
from everlease.chain.deploy import send_and_wait
from everlease.chain.deployment import BadDeployment, Deployment, Terms, camel
from everlease.chain.errors import BadAnswer, CallReverted, RpcUnavailable, WrongChain
from everlease.chain.event_codec import decode_event
from everlease.chain.rpc import RpcChain
from everlease.chain.views import JobOnChain, LeaseOnChain, LimitsOnChain, StakeOnChain
from everlease.domain.lease import LeaseState
from everlease.domain.terms import NodeAuth, lease_params
from tests.support.deployed import DOLLAR, Market

pytestmark = pytest.mark.anvil


def test_digests_are_the_contracts_own(market: Market) -> None:
    order = market.order(nonce=2**255)
    job = typed_data.job_id(market.deployment.escrow_domain, order)
    bid, _ = market.bid(job, 3)
    receipt, _ = market.receipt("0x" + "ab" * 32, 17, 12, final=True)
    auth = NodeAuth(market.provider.address, market.node.address, 99, 2**200)
    escrow = market.deployment.escrow_domain
    assert market.views.order_hash(order) == typed_data.order_digest(escrow, order)
    assert market.views.bid_hash(bid) == typed_data.bid_digest(escrow, bid)
    assert market.views.receipt_hash(receipt) == typed_data.receipt_digest(escrow, receipt)
    staking = market.deployment.staking_domain
    assert market.views.node_auth_hash(auth) == typed_data.node_auth_digest(staking, auth)


def test_the_life_of_a_lease(market: Market) -> None:
    market.stake()
    order = market.order()
    job = market.fund(order)
    opening, lease = market.open_call(job)
    receipt = market.send(market.watcher, opening)
    logs = market.chain.logs_of([market.deployment.escrow, market.deployment.staking], receipt.block_hash)
    opened = next(event for event in map(decode_event, logs) if isinstance(event, LeaseOpened))
    assert opened.lease_id == lease
    assert opened.node == market.node.address
    assert market.views.job(job).active
    params = market.leases[lease]
    started = market.views.lease(lease).started_at
    market.anvil.warp(100)
    proof, signature = market.receipt(lease, 60, started + 60, final=True)
    market.send(market.provider, market.escrow.collect(params, proof, signature))
    paid = market.views.lease(lease)
    assert (paid.state, paid.paid, paid.earned, paid.seen) == (LeaseState.ACTIVE, 60, 60, 60)
    assert market.views.locked(market.provider.address) == params.collateral
    market.send(market.tenant, market.escrow.close(params, proof, signature))
    assert market.views.lease(lease).state is LeaseState.NONE
    pay = DOLLAR // 2 * 60 // 3600
    assert market.views.claimable(market.provider.address) == pay - pay // 100
    assert market.views.job(job).fees == pay // 100
    assert market.views.locked(market.provider.address) == 0
    assert market.views.limits(order) == LimitsOnChain(order.deadline, order.max_epochs, order.max_rate_per_hour)


def test_a_permit_funds_without_an_allowance(market: Market) -> None:
    order = market.order()
    signature = market.tenant.sign(market.order_digest(order))
    permit = sign_permit(
        market.chain, market.deployment, market.tenant.address, market.deployment.escrow, order.deposit,
        market.now() + 600, market.tenant.sign,
    )  # fmt: skip
    receipt = market.send(market.watcher, market.escrow.fund(order, signature, permit))
    logs = market.chain.logs([market.deployment.escrow], receipt.block_number, receipt.block_number)
    assert any(isinstance(decode_event(log), JobFunded) for log in logs)


def test_custom_errors_come_with_their_values(market: Market) -> None:
    order = market.order()
    job = typed_data.job_id(market.deployment.escrow_domain, order)
    bid, _ = market.bid(job)
    params = lease_params(order, bid, 7)
    with pytest.raises(CallReverted) as caught:
        market.send(market.tenant, market.escrow.notice(params))
    assert caught.value.name == "WrongLeaseState"
    assert caught.value.values["lease_id"] == typed_data.lease_id(params)
    with pytest.raises(CallReverted) as caught:
        market.send(market.tenant, market.escrow.refund(order))
    assert (caught.value.name, caught.value.values) == ("UnknownJob", {"job_id": job})
    with pytest.raises(CallReverted) as caught:
        market.send(market.tenant, market.escrow.multicall([market.escrow.refund(order)]))
    assert caught.value.name == "UnknownJob"


def test_dataclasses_follow_the_structs() -> None:
    functions = {
        (contract, item["name"]): [part["name"] for part in item["outputs"][0]["components"]]
        for contract in ("LeaseEscrow", "ProviderStaking")
        for item in abi.artifact(contract)["abi"]
        if item["type"] == "function" and item["outputs"] and "components" in item["outputs"][0]
    }
    for kind, name in (
        (JobOnChain, ("LeaseEscrow", "job")),
        (LimitsOnChain, ("LeaseEscrow", "limits")),
        (LeaseOnChain, ("LeaseEscrow", "lease")),
        (StakeOnChain, ("ProviderStaking", "stakeOf")),
        (Terms, ("LeaseEscrow", "config")),
    ):
        assert [camel(field.name) for field in fields(kind)] == functions[name]


def test_deployments_file(market: Market, tmp_path: Path) -> None:
    path = tmp_path / "deployments.json"
    market.deployment.save(path)
    assert Deployment.load(path) == market.deployment
    assert Deployment.read(market.chain, market.deployment.escrow, market.deployment.block) == market.deployment
    path.write_text("{}")
    for bad in (path, tmp_path / "none.json"):
        with pytest.raises(BadDeployment):
            Deployment.load(bad)
    other = Deployment(1, "0x", "0x", "0x", 0, market.deployment.terms)
    with pytest.raises(WrongChain):
        other.check_chain(market.chain)


def test_no_contract_there(market: Market) -> None:
    with pytest.raises(BadAnswer, match="deployed"):
        Deployment.read(market.chain, "0x" + "99" * 20, 0)


def test_a_dead_endpoint_is_stepped_over(market: Market) -> None:
    chain = RpcChain.connect(["http://127.0.0.1:1", market.anvil.url])
    assert chain.chain_id() == 31337
    chain.close()
    chain = RpcChain.connect(["http://127.0.0.1:1"], timeout=0.5)
    with pytest.raises(RpcUnavailable):
        chain.chain_id()
    chain.close()


def test_value_can_be_sent(market: Market) -> None:
    receiver = "0x" + "77" * 20
    send_and_wait(market.chain, market.tenant, receiver, b"", value=5)
    assert market.chain.balance(receiver) == 5
