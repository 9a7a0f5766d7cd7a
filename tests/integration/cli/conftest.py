"""The command line as a process, on Anvil."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from everlease.chain.keys import Key, save_keystore
from tests.support.deployed import DOLLAR, Market

RATE = DOLLAR // 2
SERVED_S = 80
CHECKOUT = Path(__file__).parents[3]


@dataclass
class Cli:
    """``folder`` holds the deployments file, and the keystore of whoever called last with its password."""

    market: Market
    folder: Path

    def __call__(self, key: Key, *words: str, known: bool = True) -> subprocess.CompletedProcess[str]:
        keystore, password = self.folder / "key.json", self.folder / "password"
        keystore.unlink(missing_ok=True)
        if known:
            save_keystore(keystore, key, "secret", rounds=2**12)
            password.write_text("secret\n")
        process = self.start(*words)
        out, err = process.communicate()
        return subprocess.CompletedProcess(words, process.returncode, out, err)

    def start(self, *words: str) -> "subprocess.Popen[str]":
        """Start a command with the keystore as the last call left it."""
        argv = [
            sys.executable, "-m", "everlease.cli.main", "--rpc", self.market.anvil.url, "--key", "key.json",
            "--deployments", "deployments.json", *words,
        ]  # fmt: skip
        environment = {"PATH": "/usr/bin:/bin", "HOME": str(self.folder), "COLUMNS": "400", "PYTHONPATH": str(CHECKOUT)}
        return subprocess.Popen(
            argv, cwd=self.folder, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip


@pytest.fixture
def cli(market: Market, tmp_path: Path) -> Cli:
    market.deployment.save(tmp_path / "deployments.json")
    return Cli(market, tmp_path)


def served(market: Market) -> str:
    """A job with one lease that has ended, and whose fee is withheld; its id."""
    market.stake()
    job = market.fund(market.order())
    opening, lease = market.open_call(job, rate=RATE)
    market.send(market.watcher, opening)
    market.anvil.warp(SERVED_S + 10)
    proof, signature = market.receipt(lease, SERVED_S, market.views.lease(lease).started_at + SERVED_S, final=True)
    market.send(market.provider, market.escrow.close(market.leases[lease], proof, signature))
    return job
