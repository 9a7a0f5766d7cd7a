"""`ape run deploy` leaves a file that the services read, and contracts that are the committed ones."""

import json
import os
import subprocess
import time
from pathlib import Path

import pytest

from everlease.chain.bytecode import created_address
from everlease.chain.deploy import deploy_escrow
from everlease.chain.deployment import Deployment
from everlease.chain.keys import save_keystore
from everlease.chain.rpc import RpcChain
from tests.support.anvil import Anvil, running_anvil
from tests.support.deployed import TERMS, key
from tests.support.small_disk import small_disk

ROOT = Path(__file__).resolve().parents[3]
PASSWORD = "correct horse"
APE = ROOT / ".venv-ape" / "bin" / "ape"

pytestmark = [
    pytest.mark.anvil,
    pytest.mark.skipif(not APE.exists(), reason="ape's environment is not there: run `make setup`"),
]


def environment(url: str, folder: Path) -> dict[str, str]:
    return os.environ | {
        "APE_FOUNDRY_HOST": url,
        "APE_DATA_FOLDER": str(folder / "ape"),
        "APE_ACCOUNTS_deployer_PASSPHRASE": PASSWORD,
    }


def run_deploy(
    url: str, folder: Path, *options: str, network: str = "ethereum:local:foundry"
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(APE), "run", "deploy", "--network", network, *options],
        cwd=ROOT, env=environment(url, folder), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_the_deployments_file_describes_what_the_chain_has(anvil: Anvil, tmp_path: Path) -> None:
    terms = tmp_path / "terms.json"
    terms.write_text(json.dumps({"answerWindow": 30}))
    out = tmp_path / "deployments.json"
    run = run_deploy(anvil.url, tmp_path, "--terms", str(terms), "--out", str(out))
    assert run.returncode == 0, run.stdout + run.stderr
    deployment = Deployment.load(out)
    chain = RpcChain.connect([anvil.url])
    assert deployment.terms.answer_window == 30
    assert Deployment.read(chain, deployment.escrow, deployment.block) == deployment
    chain.close()
    before = out.read_text()
    again = run_deploy(anvil.url, tmp_path, "--out", str(out))
    assert again.returncode != 0
    assert "replace it with --force" in again.stderr
    assert out.read_text() == before


def test_a_public_network_is_deployed_to_when_asked_and_confirmed(tmp_path: Path) -> None:
    """Anvil plays Sepolia by its chain id; ape takes it for one."""
    owner, out = key(0), tmp_path / "deployments.json"
    save_keystore(tmp_path / "ape" / "accounts" / "deployer.json", owner, PASSWORD, rounds=2**12)
    with running_anvil("--chain-id", "11155111", "--block-time", "1") as sepolia:
        chain = RpcChain.connect([sepolia.url])
        asset = deploy_escrow(chain, owner, TERMS).asset
        nonce = chain.nonce(owner.address)

        def run(*options: str) -> subprocess.CompletedProcess[str]:
            network = f"ethereum:sepolia:{sepolia.url}"
            return run_deploy(sepolia.url, tmp_path, "--account", "deployer", *options, network=network)

        nameless = run("--out", str(out))
        assert "name the settlement token with --asset" in nameless.stderr
        dry = run("--asset", asset, "--out", str(out), "--dry-run")
        assert dry.returncode == 0, dry.stdout + dry.stderr
        assert f"deployer   {owner.address}, nonce {nonce}, " in dry.stdout
        assert f"asset      {asset}: mUSD, 6 decimals, with EIP-2612" in dry.stdout
        unconfirmed = run("--asset", asset, "--out", str(out))
        assert unconfirmed.returncode != 0
        assert "Deploy this?" in unconfirmed.stdout
        assert (chain.nonce(owner.address), out.exists()) == (nonce, False)
        done = run("--asset", asset, "--out", str(out), "--yes", "--confirmations", "2")
        assert done.returncode == 0, done.stdout + done.stderr
        assert chain.nonce(owner.address) == nonce + 1
        deployment = Deployment.load(out)
        assert deployment.escrow == created_address(owner.address, nonce)
        assert deployment.escrow in dry.stdout
        checked = run("--verify", str(out))
        assert checked.returncode == 0, checked.stdout + checked.stderr
        assert checked.stdout.count("ok  ") == 6
        chain.close()


def test_a_run_killed_while_it_waits_is_finished_by_the_same_command(tmp_path: Path) -> None:
    out = tmp_path / "deployments.json"
    pending = tmp_path / "deployments.json.pending"
    with running_anvil("--no-mining") as anvil:
        command = [str(APE), "run", "deploy", "--network", "ethereum:local:foundry", "--out", str(out)]
        with subprocess.Popen(command, cwd=ROOT, env=environment(anvil.url, tmp_path)) as process:
            deadline = time.monotonic() + 120
            while not pending.exists() and process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.05)
            process.kill()
        assert pending.exists()
        assert not out.exists()
        first = json.loads(pending.read_text())["steps"][0]
        anvil.rpc("evm_setAutomine", True)
        anvil.mine()
        done = run_deploy(anvil.url, tmp_path, "--out", str(out))
        assert done.returncode == 0, done.stdout + done.stderr
        assert "going on with the deployment" in done.stdout
        assert json.loads(out.read_text())["contracts"]["MockDollar"]["address"] == first["address"]
        assert anvil.rpc("eth_getTransactionCount", key(0).address, "latest") == "0x2"
    assert not pending.exists()


def test_a_full_disk_is_named_and_the_same_command_deploys_once_there_is_room(anvil: Anvil, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        out = disk.root / "deployments.json"
        disk.fill()
        full = run_deploy(anvil.url, tmp_path, "--out", str(out))
        assert full.returncode != 0
        assert f"Error: {out}.pending can't be written: No space left on device; " in full.stdout + full.stderr
        assert "Traceback" not in full.stdout + full.stderr
        assert disk.names() == set()
        assert anvil.rpc("eth_getTransactionCount", key(0).address, "latest") == "0x0"
        disk.free()
        done = run_deploy(anvil.url, tmp_path, "--out", str(out))
        assert done.returncode == 0, done.stdout + done.stderr
        assert disk.names() == {"deployments.json"}
        assert anvil.rpc("eth_getTransactionCount", key(0).address, "latest") == "0x2"


def test_of_two_runs_started_at_once_one_deploys(tmp_path: Path) -> None:
    """Nothing is mined until one of them has ended, so they meet."""
    out = tmp_path / "deployments.json"
    with running_anvil("--no-mining") as anvil:
        command = [str(APE), "run", "deploy", "--network", "ethereum:local:foundry", "--out", str(out)]
        runs = [
            subprocess.Popen(
                command, cwd=ROOT, env=environment(anvil.url, tmp_path / name), stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            )
            for name in ("one", "two")
        ]  # fmt: skip
        try:
            deadline = time.monotonic() + 120
            while all(run.poll() is None for run in runs) and time.monotonic() < deadline:
                time.sleep(0.05)
            second, first = sorted(runs, key=lambda run: run.poll() is None)
            said = second.communicate(timeout=5)[0]
            assert second.returncode not in (0, None), said
            assert f"Error: another deployment to {out} is running: " in said
            assert "Traceback" not in said
            assert not out.exists()
            anvil.rpc("evm_setAutomine", True)
            anvil.mine()
            told = first.communicate(timeout=120)[0]
            assert first.returncode == 0, told
        finally:
            for run in runs:
                run.kill()
                run.wait()
        assert anvil.rpc("eth_getTransactionCount", key(0).address, "latest") == "0x2"
        assert Deployment.load(out).escrow in told
        assert [path.name for path in tmp_path.glob("deployments*")] == ["deployments.json"]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--treasury", "0x" + "00" * 20), "LeaseEscrow's constructor refuses this: ZeroAddress()"),
        (("--account", "nobody"), "ape has no account nobody"),
    ],
)
def test_what_does_not_suit_is_refused_in_one_sentence(
    anvil: Anvil, tmp_path: Path, options: tuple[str, ...], sentence: str
) -> None:
    run = run_deploy(anvil.url, tmp_path, *options, "--out", str(tmp_path / "deployments.json"))
    assert run.returncode != 0
    assert f"Error: {sentence}" in run.stdout + run.stderr
    assert "Traceback" not in run.stdout + run.stderr
    assert anvil.rpc("eth_getTransactionCount", key(0).address, "latest") == "0x0"
    assert not (tmp_path / "deployments.json").exists()


def test_an_unknown_term_is_refused_in_one_sentence(anvil: Anvil, tmp_path: Path) -> None:
    terms = tmp_path / "terms.json"
    terms.write_text(json.dumps({"anserWindow": 30}))
    run = run_deploy(anvil.url, tmp_path, "--terms", str(terms), "--out", str(tmp_path / "deployments.json"))
    assert run.returncode != 0
    assert "unknown terms: anserWindow" in run.stdout + run.stderr
    assert not (tmp_path / "deployments.json").exists()
