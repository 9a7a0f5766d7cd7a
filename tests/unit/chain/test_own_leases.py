"""Leases by a provider's events: every range is bounded, a smaller answer is asked for, and nobody else's are found."""

from eth_abi import abi

from everlease.chain._generated.events import JobFunded, LeaseOpened
from everlease.chain.deployment import Deployment
from everlease.chain.memory import MemoryChain
from everlease.chain.own_leases import opened_by, params_of
from everlease.chain.typed_data import lease_id
from everlease.domain.terms import LeaseParams
from tests.support.deployed import TERMS

ESCROW, OTHER = "0x" + "e5" * 20, "0x" + "0f" * 20
TENANT, WATCHER, PROVIDER, NODE = ("0x" + f"{n:02x}" * 20 for n in (1, 2, 3, 4))
DEPLOYMENT = Deployment(1, ESCROW, "0x" + "5a" * 20, "0x" + "a5" * 20, 1, TERMS)


def params(number: int, provider: str = PROVIDER) -> LeaseParams:
    return LeaseParams("0x" + f"{number:064x}", TENANT, WATCHER, provider, NODE, 1, 6, 900, 50, number)


def _word(value: str) -> str:
    return "0x" + value[2:].rjust(64, "0")


def fund(chain: MemoryChain, lease: LeaseParams) -> None:
    data = abi.encode(
        ["bytes32", "uint128", "uint128", "uint128", "uint32", "uint32", "uint128", "uint64", "uint256"],
        [b"\1" * 32, 1000, 9, 1, lease.max_silence, 5, 0, 99, 1],
    )
    topics = ("0x" + JobFunded.TOPIC0.hex(), lease.job_id, _word(lease.tenant), _word(lease.watcher))
    chain.emit(ESCROW, topics, data)


def open_lease(chain: MemoryChain, lease: LeaseParams) -> None:
    kinds = ["address", "uint32"] + ["uint128"] * 5 + ["uint64"] * 3 + ["uint256"]
    values = [lease.node, lease.epoch, lease.rate, lease.collateral, 1, 1, 0, 10, 20, 30, lease.slot]
    topics = ("0x" + LeaseOpened.TOPIC0.hex(), lease.job_id, lease_id(lease), _word(lease.provider))
    chain.emit(ESCROW, topics, abi.encode(kinds, values))


def test_a_providers_leases_are_found_and_their_terms_made_whole() -> None:
    chain = MemoryChain()
    chain.max_logs = 1
    for number in range(1, 4):
        fund(chain, params(number))
        chain.mine()
    for number in range(1, 4):
        open_lease(chain, params(number))
        chain.mine(2)
    open_lease(chain, params(9, OTHER))
    chain.mine(3)
    head = chain.header("latest")
    assert head is not None
    looks = list(opened_by(chain, DEPLOYMENT, PROVIDER, 0, head.number))
    assert looks[-1].last == head.number
    assert [look.last for look in looks] == sorted({look.last for look in looks})
    found = [opened for look in looks for opened in look.found]
    assert [params_of(chain, DEPLOYMENT, opened) for opened in found] == [params(number) for number in range(1, 4)]


def test_terms_that_do_not_make_the_leases_id_are_not_believed() -> None:
    chain = MemoryChain()
    lease = params(1)
    fund(chain, LeaseParams(**{**{f: getattr(lease, f) for f in lease.__slots__}, "max_silence": 7}))
    chain.mine()
    open_lease(chain, lease)
    chain.mine()
    (look,) = opened_by(chain, DEPLOYMENT, PROVIDER, 0, 2)
    assert params_of(chain, DEPLOYMENT, look.found[0]) is None
