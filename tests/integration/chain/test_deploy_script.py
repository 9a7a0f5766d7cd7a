"""`ape run deploy` leaves a file that the services read, and contracts that are the committed ones."""

import json
import os
import subprocess
from pathlib import Path

import pytest
from eth_utils import keccak

from everlease.chain.deployment import Deployment
from everlease.chain.rpc import RpcChain
from tests.support.anvil import Anvil

ROOT = Path(__file__).resolve().parents[3]
APE = ROOT / ".venv-ape" / "bin" / "ape"

pytestmark = [
    pytest.mark.anvil,
    pytest.mark.skipif(not APE.exists(), reason="ape's environment is not there: run `make setup`"),
]


def run_deploy(anvil: Anvil, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"APE_FOUNDRY_HOST": anvil.url, "APE_DATA_FOLDER": str(folder / "ape")}
    command = [str(APE), "run", "deploy", "--network", "ethereum:local:foundry", *options]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def test_the_deployments_file_describes_what_the_chain_has(anvil: Anvil, tmp_path: Path) -> None:
    terms = tmp_path / "terms.json"
    terms.write_text(json.dumps({"answerWindow": 30}))
    out = tmp_path / "deployments.json"
    run = run_deploy(anvil, tmp_path, "--terms", str(terms), "--out", str(out))
    assert run.returncode == 0, run.stdout + run.stderr
    deployment = Deployment.load(out)
    chain = RpcChain.connect([anvil.url])
    assert deployment.terms.answer_window == 30
    found = Deployment.read(chain, deployment.escrow, deployment.block)
    assert (found.staking, found.asset, found.chain_id) == (
        deployment.staking,
        deployment.asset,
        deployment.chain_id,
    )
    assert found.terms.answer_window == 30
    chain.close()
    for entry in json.loads(out.read_text())["contracts"].values():
        code = anvil.rpc("eth_getCode", entry["address"], "latest")
        assert "0x" + keccak(hexstr=code).hex() == entry["codeHash"]
    escrow = json.loads((ROOT / "everlease/chain/_generated/LeaseEscrow.json").read_text())
    block = json.loads(out.read_text())["contracts"]["LeaseEscrow"]["block"]
    creation = anvil.rpc("eth_getBlockByNumber", hex(block), True)["transactions"][0]["input"]
    assert creation.startswith(escrow["bytecode"])


def test_an_unknown_term_is_refused_in_one_sentence(anvil: Anvil, tmp_path: Path) -> None:
    terms = tmp_path / "terms.json"
    terms.write_text(json.dumps({"anserWindow": 30}))
    run = run_deploy(anvil, tmp_path, "--terms", str(terms), "--out", str(tmp_path / "deployments.json"))
    assert run.returncode != 0
    assert "unknown terms: anserWindow" in run.stdout + run.stderr
    assert not (tmp_path / "deployments.json").exists()
