"""`everlease job sweep-fees` as a process, with the wallet of somebody who has no part in the job, on Anvil."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from everlease.chain.keys import save_keystore
from everlease.domain.money import pay_for
from tests.support.deployed import DOLLAR, TERMS, Market, key

pytestmark = pytest.mark.anvil
STRANGER = key(5)
RATE = DOLLAR // 2
SERVED_S = 80


@pytest.fixture
def folder(market: Market, tmp_path: Path) -> Path:
    """A stranger's keystore and password, and the deployments file."""
    save_keystore(tmp_path / "key.json", STRANGER, "secret", rounds=2**12)
    (tmp_path / "password").write_text("secret\n")
    market.deployment.save(tmp_path / "deployments.json")
    return tmp_path


def sweep(market: Market, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    argv = [
        sys.executable, "-m", "everlease.cli.main", "--rpc", market.anvil.url, "--key", "key.json",
        "--deployments", "deployments.json", "job", "sweep-fees", *words,
    ]  # fmt: skip
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(folder), "COLUMNS": "400"}
    return subprocess.run(argv, cwd=folder, env=environment, capture_output=True, text=True, check=False)


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


def test_the_treasury_is_credited_once(market: Market, folder: Path) -> None:
    job, fee = served(market), pay_for(RATE, SERVED_S) * TERMS.fee_bps // 10_000
    assert (market.views.job(job).fees, market.views.claimable(TERMS.treasury)) == (fee, 0)
    done = sweep(market, folder, job, "--json")
    assert (done.returncode, json.loads(done.stdout)) == (0, {"job": job, "swept": fee}), done.stderr
    assert (market.views.job(job).fees, market.views.claimable(TERMS.treasury)) == (0, fee)
    assert market.chain.nonce(STRANGER.address) == 1
    again = sweep(market, folder, job)
    assert (again.returncode, again.stdout) == (0, "there are no fees to sweep\n"), again.stderr
    assert market.views.claimable(TERMS.treasury) == fee
    assert market.chain.nonce(STRANGER.address) == 1, "a transaction without effect would cost gas"


def test_people_are_told_the_amount(market: Market, folder: Path) -> None:
    job = served(market)
    done = sweep(market, folder, job.replace("a", "A"))
    assert (done.returncode, done.stdout) == (0, "$0.000111 of fees credited to the treasury\n"), done.stderr


def test_a_job_without_an_ended_lease_has_nothing_to_sweep(market: Market, folder: Path) -> None:
    done = sweep(market, folder, market.fund(market.order()), "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["swept"] == 0
    assert market.chain.nonce(STRANGER.address) == 0


def test_a_job_that_nobody_funded_is_said_as_such(market: Market, folder: Path) -> None:
    unknown = "0x" + "77" * 32
    done = sweep(market, folder, unknown)
    assert (done.returncode, done.stdout) == (4, "")
    assert done.stderr == f"error: the escrow {market.deployment.escrow} was never paid for a job {unknown}\n"


@pytest.mark.parametrize("wrong", ["train-mlp", "0x" + "77" * 31, "0x" + "77" * 33, "77" * 33, "0x" + "zz" * 32])
def test_what_is_no_job_id_is_refused(market: Market, folder: Path, wrong: str) -> None:
    done = sweep(market, folder, wrong)
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr == f"error: {wrong!r} is no job id: give 0x and 64 hexadecimal digits\n"
    assert market.chain.nonce(STRANGER.address) == 0


def test_it_takes_a_job_a_wallet_and_ether(market: Market, folder: Path) -> None:
    assert "Missing argument 'JOB'" in sweep(market, folder).stderr
    job = served(market)
    market.anvil.rpc("anvil_setBalance", STRANGER.address, "0x0")
    poor = sweep(market, folder, job)
    assert (poor.returncode, poor.stdout) == (7, ""), poor.stderr
    assert "can't pay for the transaction's gas" in poor.stderr
    (folder / "key.json").unlink()
    keyless = sweep(market, folder, job)
    assert keyless.returncode == 5
    assert "there is no key file key.json" in keyless.stderr
    assert market.views.job(job).fees > 0
