"""A launch as a transaction: many at once, Ctrl-C, a kill, and the same file again. Commands are real processes."""

import json
import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from everlease.db import jobs
from tests.integration.cli.launching import Tenant
from tests.support.deployed import DOLLAR, Market
from tests.support.docker_engine import running_engine
from tests.support.marketplace import make_settings, served

pytestmark = [pytest.mark.anvil, pytest.mark.timeout(300)]
JOB_ID = re.compile(r"0x[0-9a-f]{64}")


@pytest.fixture
def tenant(market: Market, postgres_url: str, tmp_path: Path) -> Iterator[Tenant]:
    (tmp_path / "home").mkdir()
    with (
        served(make_settings(market, postgres_url, tmp_path)) as service,
        running_engine(tmp_path / "docker.sock") as engine,
    ):
        yield Tenant(market, service, engine, tmp_path / "home")


def mining(market: Market, on: bool) -> None:
    market.anvil.rpc("evm_setAutomine", on)
    if on:
        market.anvil.mine()


def await_payment(market: Market) -> None:
    """Until a transaction waits in the pool."""
    deadline = time.monotonic() + 60
    while market.anvil.rpc("txpool_status")["pending"] == "0x0":
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_ten_at_once_from_one_wallet_all_succeed(tenant: Tenant) -> None:
    before = tenant.held()
    launches = [tenant.start("job", "launch", "job.yaml", "--json") for _ in range(10)]
    done = [(*launch.communicate(timeout=280), launch.returncode) for launch in launches]
    assert [code for _, _, code in done] == [0] * 10, [err for _, err, _ in done]
    ids = {json.loads(out)["job"]["id"] for out, _, _ in done}
    assert len(ids) == 10
    assert set(tenant.funded()) == set(tenant.jobs()) == ids
    assert tenant.held() == before - 10 * 2 * DOLLAR


def test_those_without_money_leave_no_order(tenant: Tenant) -> None:
    tenant.write(deposit="400.00")
    launches = [tenant.start("job", "launch", "job.yaml") for _ in range(4)]
    done = [(*launch.communicate(timeout=280), launch.returncode) for launch in launches]
    assert sorted(code for _, _, code in done) == [0, 0, 7, 7], [err for _, err, _ in done]
    assert len(tenant.jobs()) == len(tenant.funded()) == 2


def test_the_id_comes_with_the_post_and_ctrl_c_says_what_was_sent(tenant: Tenant) -> None:
    before = tenant.held()
    mining(tenant.market, False)
    launch = tenant.start("job", "launch", "job.yaml")
    assert launch.stdout is not None
    line = launch.stdout.readline()
    found = JOB_ID.search(line)
    assert found, line
    assert not tenant.market.views.job(found[0]).funded, "the id is told before the payment is through"
    await_payment(tenant.market)
    launch.send_signal(signal.SIGINT)
    _, err = launch.communicate(timeout=60)
    assert launch.returncode == 130
    assert f"interrupted: job {found[0]} is posted" in err
    assert re.search(rf"deposit of 2.00 for job {found[0]}: sent \(0x[0-9a-f]{{64}}\), not seen in a block yet", err)

    mining(tenant.market, True)
    again = tenant.run("job", "launch", "job.yaml", "--json")
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["job"]["id"] == found[0]
    assert tenant.jobs() == tenant.funded() == [found[0]]
    assert tenant.held() == before - 2 * DOLLAR
    another = tenant.run("job", "launch", "job.yaml", "--json")
    assert json.loads(another.stdout)["job"]["id"] != found[0], "that launch is done; this is another"


def test_a_killed_launch_goes_on_and_a_changed_file_pays_no_second_time_unasked(tenant: Tenant) -> None:
    before = tenant.held()
    mining(tenant.market, False)
    launch = tenant.start("job", "launch", "job.yaml")
    assert launch.stdout is not None
    found = JOB_ID.search(launch.stdout.readline())
    assert found
    await_payment(tenant.market)
    os.kill(launch.pid, signal.SIGKILL)
    launch.communicate()
    mining(tenant.market, True)

    tenant.write(deposit="3.00")
    changed = tenant.run("job", "launch", "job.yaml")
    assert changed.returncode == 5, changed.stderr
    assert f"its launch as job {found[0]} broke off, and that job is paid for" in changed.stderr
    assert "--new" in changed.stderr
    assert (tenant.held(), tenant.jobs()) == (before - 2 * DOLLAR, [found[0]])
    fresh = tenant.run("job", "launch", "job.yaml", "--new", "--json")
    assert fresh.returncode == 0, fresh.stderr
    assert tenant.held() == before - 5 * DOLLAR
    assert len(tenant.funded()) == 2


def test_files_of_launches_are_their_owners_alone_and_go_when_done(tenant: Tenant) -> None:
    state = tenant.folder / ".local/state/everlease/wallets"
    mining(tenant.market, False)
    launch = tenant.start("job", "launch", "job.yaml")
    assert launch.stdout is not None
    launch.stdout.readline()
    launch.send_signal(signal.SIGINT)
    launch.communicate(timeout=60)
    mining(tenant.market, True)
    files = [path for path in state.rglob("*") if path.is_file()]
    assert any(JOB_ID.search(path.name) for path in files)
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}
    assert {path.stat().st_mode & 0o777 for path in state.rglob("*") if path.is_dir()} == {0o700}
    assert tenant.run("job", "launch", "job.yaml").returncode == 0
    assert [path.name for path in state.rglob("*") if path.is_file()] == ["lock"]


def test_job_fund_pays_a_posted_job_once(tenant: Tenant) -> None:
    before = tenant.held()
    tenant.market.anvil.rpc("anvil_setBalance", tenant.market.tenant.address, hex(10**18))
    mining(tenant.market, False)
    launch = tenant.start("job", "launch", "job.yaml")
    assert launch.stdout is not None
    launch.stdout.readline()
    launch.kill()
    launch.communicate()
    tenant.market.anvil.rpc("anvil_dropAllTransactions")
    mining(tenant.market, True)
    assert tenant.funded() == []
    paid = tenant.run("job", "fund", "train", "--json")
    assert paid.returncode == 0, paid.stderr
    assert json.loads(paid.stdout)["tx"]
    again = tenant.run("job", "fund", "train")
    assert "was paid already" in again.stdout
    assert tenant.funded() == tenant.jobs()
    assert tenant.held() == before - 2 * DOLLAR


def test_job_extend_raises_the_limits_and_lowers_none(tenant: Tenant) -> None:
    tenant.run("job", "launch", "job.yaml")
    words = ("--lifetime", "20d", "--max-leases", "170", "--max-price-per-hour", "0.75", "--json")
    extended = tenant.run("job", "extend", "train", *words)
    assert extended.returncode == 0, extended.stderr
    told = json.loads(extended.stdout)
    assert (told["max_leases"], told["max_rate_per_hour"]) == (170, DOLLAR * 3 // 4)
    assert told["deadline"] > time.time() + 19 * 86_400
    lower = tenant.run("job", "extend", "train", "--max-price-per-hour", "0.60")
    assert (lower.returncode, "can't be lowered to 0.60" in lower.stderr) == (3, True), lower.stderr
    far = tenant.run("job", "extend", "train", "--lifetime", "4000d")
    assert (far.returncode, "the latest is" in far.stderr) == (3, True), far.stderr
    nothing = tenant.run("job", "extend", "train", "--max-leases", "170", "--json")
    assert json.loads(nothing.stdout)["tx"] is None


def in_state(tenant: Tenant, state: str) -> tuple[str, int]:
    """A job of the tenant's in this state, and what the wallet holds then."""
    job = json.loads(tenant.run("job", "launch", "job.yaml", "--json").stdout)["job"]["id"]
    with tenant.service.db.transaction() as tx:
        jobs.get(tx, job).state = state
    return job, tenant.held()


@pytest.mark.parametrize(
    ("state", "option", "answer", "code", "paid", "says"),
    [
        ("RUNNING", None, "", 0, True, "1.50 added to train"),
        ("EXHAUSTED", None, "", 0, True, "1.50 added to train"),
        ("SUCCEEDED", None, "n\n", 5, False, "train has ended, and nothing was paid"),
        ("SUCCEEDED", None, "", 5, False, "nothing was paid: say with --resume or --no-resume"),
        ("FAILED", None, "y\n", 5, False, "the deposit of job train was never paid"),
        ("CANCELLED", "--resume", "", 5, False, "a job that is CANCELLED can't be asked to resume: it has ended"),
        ("CANCELLED", "--no-resume", "", 0, True, "1.50 added to train"),
        ("HIBERNATED", None, "y\n", 0, True, "which is asked to go on"),
        ("HIBERNATED", None, "n\n", 0, True, "1.50 added to train"),
        ("HIBERNATED", "--resume", "", 0, True, "which is asked to go on"),
    ],
)
def test_money_for_a_job_that_it_does_not_start_is_asked_about(
    tenant: Tenant, state: str, option: str | None, answer: str, code: int, paid: bool, says: str
) -> None:
    job, held = in_state(tenant, state)
    done = tenant.run("job", "top-up", job, "1.50", *([option] if option else []), answer=answer)
    assert done.returncode == code, done.stderr
    assert says in done.stdout + done.stderr
    assert tenant.held() == held - (DOLLAR * 3 // 2 if paid else 0)
    with tenant.service.db.transaction() as tx:
        assert jobs.get(tx, job).wish == ("resume" if "asked to go on" in says else None)


def test_ctrl_c_while_a_launch_is_followed_says_that_the_job_runs_on(tenant: Tenant) -> None:
    launch = tenant.start("job", "launch", "job.yaml", "--wait")
    assert launch.stdout is not None
    found = JOB_ID.search(launch.stdout.readline())
    assert found
    assert any("job.created" in line for line in launch.stdout)
    launch.send_signal(signal.SIGINT)
    _, err = launch.communicate(timeout=60)
    assert launch.returncode == 130
    assert f"interrupted: job {found[0]} is posted and paid for, and runs on" in err
