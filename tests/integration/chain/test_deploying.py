"""Deploying by plan and run on a real chain: interrupted anywhere, on unsuitable input, and checked afterwards."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from eth_account import Account

from everlease.chain.bytecode import created_address, is_committed, staking_address
from everlease.chain.deploy import deploy_escrow
from everlease.chain.deploy_plan import Unsuitable, describe, make_plan
from everlease.chain.deploy_run import DeploymentFailed, Pending, Run
from everlease.chain.deployment import BadDeployment, Deployment, NotWritten
from everlease.chain.errors import ChainError, WrongChain
from everlease.chain.keys import Key
from everlease.chain.rpc import RpcChain
from everlease.chain.verification import verify
from tests.support.anvil import Anvil, running_anvil
from tests.support.deployed import TERMS, Market, key
from tests.support.small_disk import SmallDisk, small_disk
from tests.support.waiting import wait_for

pytestmark = pytest.mark.anvil
OWNER = key(0)


class Interrupted(Exception):
    """The process dies here."""


@dataclass
class Signer:
    """The deployer; ``signed`` is all that ever left it."""

    address: str = OWNER.address
    signed: list[bytes] = field(default_factory=list)

    def sign(self, fields: Mapping[str, Any]) -> bytes:
        whole = {"type": 2, "value": 0, "to": b"", **fields}
        self.signed.append(bytes(Account.sign_transaction(whole, OWNER.secret).raw_transaction))
        return self.signed[-1]


@pytest.fixture
def chain(anvil: Anvil) -> Iterator[RpcChain]:
    chain = RpcChain.connect([anvil.url])
    yield chain
    chain.close()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with small_disk(tmp_path / "disk") as disk:
        yield disk


def run(
    chain: RpcChain, signer: Signer, out: Path, say: Callable[[str], None] = lambda line: None, timeout_s: float = 20
) -> dict[str, Any]:
    """As the command does: go on with what is pending, or begin."""
    content = Pending(out).load() or Pending(out).begin(make_plan(chain, signer.address, TERMS, None))
    return Run(chain, signer, out, confirmations=1, timeout_s=timeout_s, poll_s=0.02, say=say).carry_out(content)


def test_a_plan_predicts_what_a_run_makes(chain: RpcChain, tmp_path: Path) -> None:
    plan = make_plan(chain, OWNER.address, TERMS, None)
    text = "\n".join(describe(plan, "ethereum:local"))
    assert chain.nonce(OWNER.address) == 0
    out, signer = tmp_path / "deployments.json", Signer()
    done = run(chain, signer, out)
    deployment = Deployment.load(out)
    assert (deployment.escrow, deployment.staking, deployment.asset) == (plan.escrow, plan.staking, plan.asset.address)
    assert all(address in text for address in (plan.escrow, plan.staking, plan.asset.address, OWNER.address))
    assert "answer window     1 min" in text
    assert done["contracts"]["LeaseEscrow"]["block"] == 2
    assert deployment == Deployment.read(chain, plan.escrow, 1)
    assert len(signer.signed) == chain.nonce(OWNER.address) == 2
    assert not Pending(out).path.exists()
    assert any("created by" in line for line in verify(chain, out))


@pytest.mark.parametrize("at", range(4))
def test_a_run_interrupted_before_or_after_sending_is_taken_up(
    anvil: Anvil, chain: RpcChain, tmp_path: Path, at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, signer, sends = tmp_path / "deployments.json", Signer(), []
    send_raw = chain.send_raw

    def dying(raw: bytes) -> str:
        sends.append(raw)
        if at % 2 == 0 and len(sends) == at // 2 + 1:
            raise Interrupted
        found = send_raw(raw)
        if at % 2 == 1 and len(sends) == at // 2 + 1:
            raise Interrupted
        return found

    with monkeypatch.context() as patch:
        patch.setattr(chain, "send_raw", dying)
        with pytest.raises(Interrupted):
            run(chain, signer, out)
    assert Pending(out).path.exists()
    assert not out.exists()
    run(chain, signer, out)
    assert len(signer.signed) == chain.nonce(OWNER.address) == 2, "each contract was signed and created once"
    assert list(verify(chain, out))


def test_a_pending_one_is_sent_again_and_dearer_only_in_another_run(
    anvil: Anvil, chain: RpcChain, tmp_path: Path
) -> None:
    anvil.rpc("evm_setAutomine", False)
    out, signer = tmp_path / "deployments.json", Signer()
    with pytest.raises(DeploymentFailed, match="run the same command again"):
        run(chain, signer, out, timeout_s=0.2)
    anvil.rpc("anvil_dropAllTransactions")
    anvil.rpc("evm_setAutomine", True)
    anvil.rpc("anvil_setNextBlockBaseFeePerGas", hex(10**12))
    anvil.mine()
    with pytest.raises(DeploymentFailed, match="is the most that is ever offered"):
        run(chain, signer, out)
    assert len(signer.signed) == 1
    anvil.rpc("anvil_setNextBlockBaseFeePerGas", hex(10**11))
    anvil.mine()
    run(chain, signer, out)
    assert len(signer.signed) == 3
    assert chain.nonce(OWNER.address) == 2
    assert created_address(OWNER.address, 1) == Deployment.load(out).escrow


def test_a_nonce_that_something_else_took_ends_it(anvil: Anvil, chain: RpcChain, tmp_path: Path) -> None:
    anvil.rpc("evm_setAutomine", False)
    out = tmp_path / "deployments.json"
    with pytest.raises(DeploymentFailed):
        run(chain, Signer(), out, timeout_s=0.2)
    anvil.rpc("anvil_dropAllTransactions")
    anvil.rpc("evm_setAutomine", True)
    take_nonce(anvil, chain)
    with pytest.raises(DeploymentFailed, match=r"nonce 0 of .* was used by another transaction"):
        run(chain, Signer(), out)


def test_a_nonce_that_is_taken_while_it_sends_is_named_at_the_end(
    anvil: Anvil, chain: RpcChain, tmp_path: Path
) -> None:
    said: list[str] = []

    def say(line: str) -> None:
        said.append(line)
        take_nonce(anvil, chain)

    with pytest.raises(DeploymentFailed, match=r"nonce 0 of .* was used by another transaction"):
        run(chain, Signer(), tmp_path / "deployments.json", say, timeout_s=1)
    assert len(said) == 1


def take_nonce(anvil: Anvil, chain: RpcChain) -> None:
    anvil.rpc("eth_sendTransaction", {"from": OWNER.address, "to": "0x" + "77" * 20, "value": "0x1"})
    wait_for(lambda: chain.nonce(OWNER.address) == 1)


def test_a_file_whose_pending_one_was_left_is_written_again(chain: RpcChain, tmp_path: Path) -> None:
    out, signer = tmp_path / "deployments.json", Signer()
    kept: list[str] = []
    run(chain, signer, out, say=lambda line: kept.append(Pending(out).path.read_text()))
    before = out.read_text()
    out.unlink()
    Pending(out).path.write_text(kept[-1])
    run(chain, signer, out)
    assert out.read_text() == before
    assert chain.nonce(OWNER.address) == 2


@pytest.mark.parametrize(("sent", "signed"), [(0, 3), (1, 3), (2, 2)])
def test_a_full_disk_leaves_the_earlier_file_and_a_run_that_goes_on(
    chain: RpcChain, disk: SmallDisk, sent: int, signed: int
) -> None:
    """It is full before the first is signed, before the second is, or before the deployments file is written."""
    out, signer, said = disk.root / "deployments.json", Signer(), list[str]()
    out.write_text("an earlier deployment\n")

    def say(line: str) -> None:
        said.append(line)
        if len(said) == sent:
            disk.fill()

    if sent == 0:
        disk.fill()
    with pytest.raises(NotWritten) as caught:
        run(chain, signer, out, say=say)
    late = "deployments.json" if sent == 2 else "deployments.json.pending"
    assert str(caught.value).startswith(f"{disk.root / late} can't be written: No space left on device; ")
    assert out.read_text() == "an earlier deployment\n"
    assert disk.names() == {"deployments.json"} | ({"deployments.json.pending"} if sent else set())
    assert chain.nonce(OWNER.address) == sent, "nothing was sent that the disk does not tell of"
    disk.free()
    run(chain, signer, out)
    assert disk.names() == {"deployments.json"}
    assert (chain.nonce(OWNER.address), len(signer.signed)) == (2, signed)
    assert list(verify(chain, out))


def test_a_folder_that_is_none_is_named(chain: RpcChain, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(NotWritten, match=r"file/deployments\.json\.pending can't be written: File exists"):
        Pending(tmp_path / "file" / "deployments.json").save({})


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"treasury": "0x" + "00" * 20}, r"constructor refuses this: ZeroAddress\(\)"),
        ({"fee_bps": 60_000}, r"constructor refuses this: InvalidConfig\(field=fee"),
        ({"answer_window": 0}, r"constructor refuses this: InvalidConfig\(field="),
    ],
)
def test_terms_are_refused_by_the_contract_itself(chain: RpcChain, changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(Unsuitable, match=sentence):
        make_plan(chain, OWNER.address, replace(TERMS, **changes), None)
    assert chain.nonce(OWNER.address) == 0


def test_unsuitable_assets_and_deployers(market: Market) -> None:
    chain, asset = market.chain, market.deployment.asset
    with pytest.raises(Unsuitable, match="is not a contract"):
        make_plan(chain, OWNER.address, TERMS, "0x" + "77" * 20)
    with pytest.raises(Unsuitable, match="does not answer as an ERC-20"):
        make_plan(chain, OWNER.address, TERMS, market.deployment.escrow)
    with pytest.raises(Unsuitable, match="has 0 ETH, and the deployment may cost"):
        make_plan(chain, Key.of(b"\7" * 32).address, TERMS, asset)
    found = make_plan(chain, OWNER.address, TERMS, asset).asset
    assert (found.symbol, found.decimals, found.permit) == ("mUSD", 6, True)


def damaged(path: Path, *way: str, value: Any) -> None:
    content = json.loads(path.read_text())
    place = content
    for name in way[:-1]:
        place = place[name]
    place[way[-1]] = value
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("way", "value", "error", "sentence"),
    [
        (("chainId",), 5, WrongChain, "serves chain 31337, the deployment is on chain 5"),
        (("contracts", "LeaseEscrow", "address"), "0x" + "77" * 20, BadDeployment, "has no contract at 0x7777"),
        (("contracts", "ProviderStaking", "codeHash"), "0x" + "00" * 32, BadDeployment, "is not that of the Provider"),
        (("config", "feeBps"), 99, BadDeployment, "terms of the escrow"),
        (("asset",), "0x" + "77" * 20, BadDeployment, "asset of the escrow"),
    ],
)
def test_a_false_file_is_found_out(
    chain: RpcChain, tmp_path: Path, way: tuple[str, ...], value: Any, error: type[ChainError], sentence: str
) -> None:
    out = tmp_path / "deployments.json"
    run(chain, Signer(), out)
    damaged(out, *way, value=value)
    with pytest.raises(error, match=sentence):
        list(verify(chain, out))


def test_other_code_with_a_matching_hash_is_not_the_committed_one(
    anvil: Anvil, chain: RpcChain, tmp_path: Path
) -> None:
    out = tmp_path / "deployments.json"
    run(chain, Signer(), out)
    deployment = Deployment.load(out)
    code = bytearray(chain.code(deployment.staking))
    code[5] ^= 1
    anvil.rpc("anvil_setCode", deployment.staking, "0x" + code.hex())
    with pytest.raises(BadDeployment, match="not that of the ProviderStaking in the deployments file"):
        deployment.check(chain)
    damaged(
        out, "contracts", "ProviderStaking", "codeHash", value=Deployment.read(chain, deployment.escrow, 1).staking_code
    )
    with pytest.raises(BadDeployment, match="not the committed ProviderStaking"):
        list(verify(chain, out))


def test_committed_code_is_told_from_any_other(market: Market) -> None:
    at = market.deployment
    addresses = {"LeaseEscrow": at.escrow, "ProviderStaking": at.staking, "MockDollar": at.asset}
    for name, address in addresses.items():
        code = market.chain.code(address)
        assert [other for other in addresses if is_committed(other, code)] == [name]
        assert not any(is_committed(name, other) for other in (b"", code[:-1], code + b"\0", code[1:]))
    assert staking_address(at.escrow) == at.staking


def test_a_chain_started_anew_is_noticed(market: Market) -> None:
    with running_anvil() as other:
        chain = RpcChain.connect([other.url])
        with pytest.raises(BadDeployment, match="started anew"):
            market.deployment.check(chain)
        deploy_escrow(chain, OWNER, TERMS)
        market.deployment.check(chain)
        chain.close()
