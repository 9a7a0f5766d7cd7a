"""`everlease job sweep-fees` as a process, with the wallet of somebody who has no part in the job, on Anvil."""

import json

import pytest

from everlease.domain.money import pay_for
from tests.integration.cli.conftest import RATE, SERVED_S, Cli, served
from tests.support.deployed import TERMS, Market, key

pytestmark = pytest.mark.anvil
STRANGER = key(5)


def test_the_treasury_is_credited_once(market: Market, cli: Cli) -> None:
    job, fee = served(market), pay_for(RATE, SERVED_S) * TERMS.fee_bps // 10_000
    assert (market.views.job(job).fees, market.views.claimable(TERMS.treasury)) == (fee, 0)
    done = cli(STRANGER, "job", "sweep-fees", job, "--json")
    assert (done.returncode, json.loads(done.stdout)) == (0, {"job": job, "swept": fee}), done.stderr
    assert (market.views.job(job).fees, market.views.claimable(TERMS.treasury)) == (0, fee)
    assert market.chain.nonce(STRANGER.address) == 1
    again = cli(STRANGER, "job", "sweep-fees", job)
    assert (again.returncode, again.stdout) == (0, "there are no fees to sweep\n"), again.stderr
    assert market.views.claimable(TERMS.treasury) == fee
    assert market.chain.nonce(STRANGER.address) == 1, "a transaction without effect would cost gas"


def test_people_are_told_the_amount(market: Market, cli: Cli) -> None:
    job = served(market)
    done = cli(STRANGER, "job", "sweep-fees", job.replace("a", "A"))
    assert (done.returncode, done.stdout) == (0, "$0.000111 of fees credited to the treasury\n"), done.stderr


def test_a_job_without_an_ended_lease_has_nothing_to_sweep(market: Market, cli: Cli) -> None:
    done = cli(STRANGER, "job", "sweep-fees", market.fund(market.order()), "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["swept"] == 0
    assert market.chain.nonce(STRANGER.address) == 0


def test_a_job_that_nobody_funded_is_said_as_such(market: Market, cli: Cli) -> None:
    unknown = "0x" + "77" * 32
    done = cli(STRANGER, "job", "sweep-fees", unknown)
    assert (done.returncode, done.stdout) == (4, "")
    assert done.stderr == f"error: the escrow {market.deployment.escrow} was never paid for a job {unknown}\n"


@pytest.mark.parametrize("wrong", ["train-mlp", "0x" + "77" * 31, "0x" + "77" * 33, "77" * 33, "0x" + "zz" * 32])
def test_what_is_no_job_id_is_refused(market: Market, cli: Cli, wrong: str) -> None:
    done = cli(STRANGER, "job", "sweep-fees", wrong)
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr == f"error: {wrong!r} is no job id: give 0x and 64 hexadecimal digits\n"
    assert market.chain.nonce(STRANGER.address) == 0


def test_it_takes_a_job_a_wallet_and_ether(market: Market, cli: Cli) -> None:
    assert "Missing argument 'JOB'" in cli(STRANGER, "job", "sweep-fees").stderr
    job = served(market)
    market.anvil.rpc("anvil_setBalance", STRANGER.address, "0x0")
    poor = cli(STRANGER, "job", "sweep-fees", job)
    assert (poor.returncode, poor.stdout) == (7, ""), poor.stderr
    assert "can't pay for the transaction's gas" in poor.stderr
    keyless = cli(STRANGER, "job", "sweep-fees", job, known=False)
    assert keyless.returncode == 5
    assert "there is no key file key.json" in keyless.stderr
    assert market.views.job(job).fees > 0
