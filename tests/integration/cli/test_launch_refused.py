"""A launch whose deposit is in the escrow, or under way, and a marketplace that refuses it or an impatient user."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from everlease.chain.errors import NotMined
from everlease.chain.rpc import RpcChain
from everlease.cli.context import Wallet
from everlease.cli.errors import CliError, ExitCode
from everlease.cli.launches import Held
from everlease.cli.market import Market as Client
from everlease.cli.payments import top_up
from tests.integration.cli.launching import Tenant
from tests.integration.cli.test_launch_steps import Killed, Person, after, before, is_job
from tests.support.deployed import DOLLAR, Market
from tests.support.docker_engine import running_engine
from tests.support.marketplace import make_settings, served

pytestmark = pytest.mark.anvil


@pytest.fixture
def tenant(market: Market, postgres_url: str, tmp_path: Path) -> Iterator[Person]:
    (tmp_path / "home").mkdir()
    with (
        served(make_settings(market, postgres_url, tmp_path)) as service,
        running_engine(tmp_path / "docker.sock") as engine,
    ):
        yield Person(Tenant(market, service, engine, tmp_path / "home"))


def refuse(monkeypatch: pytest.MonkeyPatch, status: int, *, forgets: bool = False) -> None:
    """The marketplace answers a posted order with this status; it may have forgotten the job as well."""
    real_get, real_post = Client.get, Client.post

    def get(self: Client, path: str, *words: Any, **named: Any) -> Any:
        if forgets and path.startswith("/v1/jobs/"):
            raise CliError(ExitCode.NOT_FOUND, "there is no such job", 404)
        return real_get(self, path, *words, **named)

    def post(self: Client, path: str, *words: Any, **named: Any) -> Any:
        if is_job(path):
            raise CliError(ExitCode.REFUSED, "no", status)
        return real_post(self, path, *words, **named)

    monkeypatch.setattr(Client, "get", get)
    monkeypatch.setattr(Client, "post", post)


def noted(tenant: Person) -> list[Path]:
    return list(tenant.wallet().folder.glob("launches/0x*.json"))


@pytest.mark.parametrize("status", [400, 409, 422])
def test_a_paid_launch_that_the_marketplace_refuses_is_not_forgotten(tenant: Person, status: int) -> None:
    held = tenant.tenant.held()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(*before(Held, "done", Killed))
        with pytest.raises(Killed):
            tenant.launch()
    (job,) = tenant.tenant.funded()
    with pytest.MonkeyPatch.context() as patch:
        refuse(patch, status, forgets=True)
        with pytest.raises(CliError, match="no"):
            tenant.launch()
    assert tenant.told[-1].startswith(f"job {job} may be posted and its deposit is in the escrow")
    assert len(noted(tenant)) == 1
    assert tenant.launch().job.id == job
    assert tenant.tenant.held() == held - 2 * DOLLAR


@pytest.mark.parametrize(("status", "kept"), [(422, 0), (409, 0), (401, 1), (408, 1), (302, 1), (500, 1)])
def test_an_unpaid_launch_is_forgotten_only_where_it_was_refused(tenant: Person, status: int, kept: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        refuse(patch, status)
        with pytest.raises(CliError):
            tenant.launch()
    assert len(noted(tenant)) == kept


def waiting(monkeypatch: pytest.MonkeyPatch, wait: Callable[[], object]) -> None:
    """A transaction under way in no block, and then Ctrl-C while the next command waits for it."""
    real = Wallet.__init__

    def impatient(self: Wallet, *words: Any) -> None:
        real(self, *words)
        self._queue._timeout_s = 0.5

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Wallet, "__init__", impatient)
        with pytest.raises(NotMined):
            wait()

    def interrupted(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("everlease.chain.wallet_fate.time.sleep", interrupted)


def test_ctrl_c_while_a_launch_waits_for_its_payment_says_so(tenant: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    tenant.market.anvil.rpc("evm_setAutomine", False)
    waiting(monkeypatch, tenant.launch)
    with pytest.raises(KeyboardInterrupt, match=r"^job 0x\w{64} may be posted; deposit of 2\.00 .*: sent \(0x"):
        tenant.launch()
    assert any("waiting up to 60 s for its block" in line for line in tenant.told)


def test_ctrl_c_while_a_launch_waits_for_another_payment_says_which(
    tenant: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = tenant.launch().job.id
    tenant.market.anvil.rpc("evm_setAutomine", False)
    waiting(monkeypatch, lambda: top_up(tenant.wallet(), job, DOLLAR))
    said = rf"^nothing was posted and nothing was paid for this launch; 1\.00 more for job {job}: sent \(0x"
    with pytest.raises(KeyboardInterrupt, match=said):
        tenant.launch()


def test_a_marketplace_that_shows_another_job_for_the_one_that_broke_off_is_refused(
    tenant: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tenant.launch().job
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(*after(RpcChain, "send_raw", Killed))
        with pytest.raises(Killed):
            tenant.launch()
    real = Client.get
    monkeypatch.setattr(
        Client, "get", lambda self, path, *w, **n: other if path.startswith("/v1/jobs/") else real(self, path, *w, **n)
    )
    with pytest.raises(CliError, match="the marketplace answers with job"):
        tenant.launch()
    assert len(noted(tenant)) == 1
