"""An agent compares the contracts' code with its deployments file before it does anything else.

Whether it went on shows in its next demand, a Docker daemon, which these tests don't give it.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from everlease.chain.bytecode import code_hash
from tests.support.anvil import KEYS, running_anvil
from tests.support.deployed import Market
from tests.support.rpc_endpoints import dead

pytestmark = pytest.mark.anvil
ROOT = Path(__file__).parents[3]
CONTRACTS = ["LeaseEscrow", "ProviderStaking"]


def start(market: Market, folder: Path, *rpc_urls: str) -> subprocess.CompletedProcess[str]:
    """Run the agent until it refuses to start."""
    settings = {
        "DATA_DIR": folder / "data",
        "GATEWAY_URL": "ws://127.0.0.1:9",
        "STORE_URL": "http://127.0.0.1:9",
        "DEPLOYMENTS": folder / "deployments.json",
        "RPC_URLS": json.dumps(rpc_urls),
        "PROVIDER": market.provider.address,
        "NODE_KEY": KEYS[4],
        "DOCKER_SOCKET": folder / "none.sock",
        "FIREWALL": "false",
    }
    environment = os.environ | {f"EVERLEASE_AGENT_{name}": str(value) for name, value in settings.items()}
    argv = [sys.executable, "-m", "provider_agent"]
    return subprocess.run(argv, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False)


def refused(done: subprocess.CompletedProcess[str], sentence: str, folder: Path) -> None:
    assert (done.returncode, done.stderr) == (2, f"{sentence}\n")
    assert list((folder / "data").iterdir()) == [], "nothing was made: no key, no journal, no runtime"


def went_on(done: subprocess.CompletedProcess[str], folder: Path) -> None:
    assert done.returncode == 2
    assert "docker" in done.stderr.lower()
    assert (folder / "data" / "runtime").is_dir()


def address_of(market: Market, contract: str) -> str:
    return market.deployment.escrow if contract == "LeaseEscrow" else market.deployment.staking


def test_the_very_code_of_the_file_is_gone_on_with(market: Market, tmp_path: Path) -> None:
    market.deployment.save(tmp_path / "deployments.json")
    went_on(start(market, tmp_path, market.anvil.url), tmp_path)


@pytest.mark.parametrize("contract", CONTRACTS)
def test_another_hash_in_the_file_is_refused(market: Market, tmp_path: Path, contract: str) -> None:
    file = tmp_path / "deployments.json"
    market.deployment.save(file)
    content = json.loads(file.read_text())
    digits = content["contracts"][contract]["codeHash"]
    content["contracts"][contract]["codeHash"] = digits[:-1] + ("0" if digits[-1] != "0" else "1")
    file.write_text(json.dumps(content))
    done = start(market, tmp_path, market.anvil.url)
    address = address_of(market, contract)
    refused(done, f"the code at {address} is not that of the {contract} in the deployments file", tmp_path)


@pytest.mark.parametrize("contract", CONTRACTS)
def test_other_code_on_the_chain_is_refused(market: Market, tmp_path: Path, contract: str) -> None:
    """One byte differs; with the hash of that code in the file the agent goes on: the file is what it trusts."""
    file, address = tmp_path / "deployments.json", address_of(market, contract)
    market.deployment.save(file)
    code = bytearray(market.chain.code(address))
    code[-1] ^= 1
    market.anvil.rpc("anvil_setCode", address, "0x" + code.hex())
    done = start(market, tmp_path, market.anvil.url)
    refused(done, f"the code at {address} is not that of the {contract} in the deployments file", tmp_path)
    content = json.loads(file.read_text())
    content["contracts"][contract]["codeHash"] = code_hash(bytes(code))
    file.write_text(json.dumps(content))
    went_on(start(market, tmp_path, market.anvil.url), tmp_path)


def test_a_chain_without_the_contracts_is_refused(market: Market, tmp_path: Path) -> None:
    market.deployment.save(tmp_path / "deployments.json")
    with running_anvil() as other:
        done = start(market, tmp_path, other.url)
    sentence = (
        f"chain 31337 has no contract at {market.deployment.escrow}, where the deployments file has LeaseEscrow: "
        "the file is of another network, or the development chain was started anew"
    )
    refused(done, sentence, tmp_path)


def test_a_file_without_hashes_is_refused(market: Market, tmp_path: Path) -> None:
    file = tmp_path / "deployments.json"
    market.deployment.save(file)
    content = json.loads(file.read_text())
    del content["contracts"]["ProviderStaking"]["codeHash"]
    file.write_text(json.dumps(content))
    done = start(market, tmp_path, market.anvil.url)
    refused(done, f"{file} is not a deployments file as scripts/deploy.py writes it", tmp_path)


def test_an_endpoint_that_is_down_stops_no_agent(market: Market, tmp_path: Path) -> None:
    """Nor is one asked where none is configured; settlement looks again when it can."""
    market.deployment.save(tmp_path / "deployments.json")
    with dead() as url:
        went_on(start(market, tmp_path, url), tmp_path)
    went_on(start(market, tmp_path), tmp_path)
