"""A launch that ends between any two of its steps, and the same launch again; what is checked before the upload."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from everlease.chain.errors import NotMined
from everlease.chain.rpc import RpcChain
from everlease.cli.context import Wallet
from everlease.cli.errors import CliError, ExitCode
from everlease.cli.images import LocalImages
from everlease.cli.launch import Launched, Options, launch
from everlease.cli.launches import Held, Launches
from everlease.cli.market import Market as Client
from everlease.cli.market import TokenCache
from everlease.cli.payments import fund, own_order, require_signature, top_up
from everlease.wire.http import JobOut
from everlease.wire.jobfile import JobFile
from tests.integration.cli.launching import JOB, Tenant
from tests.support.deployed import DOLLAR, Market
from tests.support.docker_engine import running_engine
from tests.support.marketplace import FakeNode, Service, make_settings, served

pytestmark = pytest.mark.anvil


class Killed(BaseException):
    """Stands for kill -9: what would tidy up does not run."""


@pytest.fixture
def service(market: Market, postgres_url: str, tmp_path: Path) -> Iterator[Service]:
    with served(make_settings(market, postgres_url, tmp_path)) as running:
        yield running


@pytest.fixture
def tenant(market: Market, service: Service, tmp_path: Path) -> Iterator["Person"]:
    (tmp_path / "home").mkdir()
    with running_engine(tmp_path / "docker.sock") as engine:
        yield Person(Tenant(market, service, engine, tmp_path / "home"))


class Person:
    """Launches in this process, each time as a new command would."""

    def __init__(self, tenant: Tenant) -> None:
        self.tenant, self.market = tenant, tenant.market
        self.told: list[str] = []
        self.source = tenant.folder / "job.yaml"

    def wallet(self) -> Wallet:
        return Wallet(
            self.market.tenant, self.market.chain, self.market.deployment, self.tenant.folder / "w", self.told.append
        )

    def client(self) -> Client:
        return Client(self.tenant.service.url, self.market.tenant, TokenCache(self.tenant.folder / "tokens.json"))

    def launch(self, *, new: bool = False, queue: bool = False, **changes: Any) -> Launched:
        self.told.clear()
        images, client = LocalImages(self.tenant.engine.path), self.client()
        job = JobFile.model_validate({**JOB, **changes})
        try:
            options = Options(self.source, new, queue)
            return launch(client, self.wallet(), images, job, self.told.append, options)
        finally:
            images.close()
            client.close()


def before(target: type, name: str, error: type[BaseException], on: Callable[..., bool] = lambda *_: True) -> Any:
    """A method that ends with ``error`` instead, once."""
    return _broken(target, name, error, on, runs=False)


def after(target: type, name: str, error: type[BaseException], on: Callable[..., bool] = lambda *_: True) -> Any:
    """A method that does its work and then ends with ``error``, once."""
    return _broken(target, name, error, on, runs=True)


def _broken(target: type, name: str, error: type[BaseException], on: Callable[..., bool], *, runs: bool) -> Any:
    real, armed = getattr(target, name), [True]

    def broken(self: Any, *words: Any, **named: Any) -> Any:
        if not (armed[0] and on(*words)):
            return real(self, *words, **named)
        armed[0] = False
        done = real(self, *words, **named) if runs else None
        if isinstance(done, Held):
            done.release()  # as the kernel does for a process that is gone
        raise error

    return target, name, broken


def is_job(path: str, *_: Any) -> bool:
    return path == "/v1/jobs"


STEPS = {
    "before the order is noted": lambda error: before(Launches, "begin", error),
    "after the order was noted": lambda error: after(Launches, "begin", error),
    "before the job is posted": lambda error: before(Client, "post", error, is_job),
    "after the job was posted": lambda error: after(Client, "post", error, is_job),
    "before the payment is sent": lambda error: before(RpcChain, "send_raw", error),
    "after the payment was sent": lambda error: after(RpcChain, "send_raw", error),
    "before the launch is struck off": lambda error: before(Held, "done", error),
}
TOLD = {
    "before the order is noted": "nothing was posted and nothing was paid",
    "after the order was noted": "nothing was posted and nothing was paid",
    "before the job is posted": "may be posted and its deposit was not seen paid",
    "after the job was posted": "may be posted and its deposit was not seen paid",
    "before the payment is sent": r"is posted; deposit of 2\.00 for job 0x\w+: sent \(0x",
    "after the payment was sent": r"is posted; deposit of 2\.00 for job 0x\w+: sent \(0x",
    "before the launch is struck off": "is posted and paid for",
}


@pytest.mark.parametrize("step", STEPS)
def test_killed_at_any_step_the_same_file_pays_once(tenant: Person, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    held = tenant.tenant.held()
    monkeypatch.setattr(*STEPS[step](Killed))
    with pytest.raises(Killed):
        tenant.launch()
    left = tenant.tenant.jobs()
    done = tenant.launch()
    assert tenant.tenant.jobs() == tenant.tenant.funded() == [done.job.id]
    assert left in ([], [done.job.id]), "the same order"
    assert tenant.tenant.held() == held - 2 * DOLLAR
    assert tenant.launch().job.id != done.job.id, "that one is done"


@pytest.mark.parametrize("step", STEPS)
def test_ctrl_c_at_any_step_says_what_was_sent_and_what_was_not(
    tenant: Person, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = tenant.tenant.held()
    monkeypatch.setattr(*STEPS[step](KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt, match=TOLD[step]):
        tenant.launch()
    assert tenant.launch().job.id in tenant.tenant.funded()
    assert len(tenant.tenant.jobs()) == 1
    assert tenant.tenant.held() == held - 2 * DOLLAR


def test_a_launch_that_runs_is_not_gone_on_with_by_another(tenant: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    inner: list[str] = []
    real = Launches.begin

    def begin(self: Launches, noted: Any) -> Held:
        held = real(self, noted)
        if not inner:
            inner.append("running")
            inner.append(tenant.launch().job.id)
        return held

    monkeypatch.setattr(Launches, "begin", begin)
    assert tenant.launch().job.id != inner[1]
    assert len(tenant.tenant.funded()) == 2


def test_a_payment_that_nobody_saw_mined_is_waited_for(tenant: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    held, real = tenant.tenant.held(), Wallet.__init__

    def impatient(self: Wallet, *words: Any) -> None:
        real(self, *words)
        self._queue._timeout_s = 0.5

    monkeypatch.setattr(Wallet, "__init__", impatient)
    tenant.market.anvil.rpc("evm_setAutomine", False)
    for _ in range(2):
        with pytest.raises(NotMined, match=r"deposit of 2\.00 for job 0x\w+ was sent"):
            tenant.launch()
    tenant.market.anvil.mine()
    tenant.market.anvil.rpc("evm_setAutomine", True)
    tenant.launch()
    assert len(tenant.tenant.jobs()) == len(tenant.tenant.funded()) == 1
    assert tenant.tenant.held() == held - 2 * DOLLAR


def test_the_marketplaces_answer_lost_and_the_same_file_again(tenant: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    class Lost(CliError):
        def __init__(self) -> None:
            super().__init__(ExitCode.UNAVAILABLE, "can't be reached")

    monkeypatch.setattr(*after(Client, "post", Lost, is_job))
    with pytest.raises(Lost):
        tenant.launch()
    assert any("may be posted and its deposit was not seen paid" in line for line in tenant.told)
    tenant.launch()
    assert len(tenant.tenant.jobs()) == len(tenant.tenant.funded()) == 1


@pytest.mark.parametrize("field", [{"id": "0x" + "ab" * 32}, {"state": "CANCELLED"}])
def test_a_marketplace_that_answers_wrongly_gets_nothing_paid(
    tenant: Person, monkeypatch: pytest.MonkeyPatch, field: dict[str, str]
) -> None:
    held, real = tenant.tenant.held(), Client.post

    def lies(self: Client, path: str, *words: Any, **named: Any) -> Any:
        answer = real(self, path, *words, **named)
        return answer.model_copy(update=field) if isinstance(answer, JobOut) else answer

    monkeypatch.setattr(Client, "post", lies)
    with pytest.raises(CliError, match="no deposit was paid"):
        tenant.launch()
    assert tenant.tenant.held() == held


def test_an_order_that_is_not_the_ids_or_not_ones_own_is_not_paid(tenant: Person) -> None:
    job = tenant.launch().job
    wallet = tenant.wallet()
    dearer = job.model_copy(update={"order": job.order.model_copy(update={"deposit": 100 * DOLLAR})})
    with pytest.raises(CliError, match="is of another job"):
        own_order(wallet, dearer)
    others = job.model_copy(update={"order": job.order.model_copy(update={"tenant": "0x" + "11" * 20})})
    with pytest.raises(CliError, match="your wallet is"):
        own_order(wallet, others)
    require_signature(wallet, job)
    for forged in ("", "0x12", tenant.market.watcher.sign(b"\1" * 32)):
        with pytest.raises(CliError, match="did not sign"):
            require_signature(wallet, job.model_copy(update={"order_signature": forged}))
    assert fund(wallet, own_order(wallet, job)) is None


def test_another_image_is_another_launch(tenant: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(*after(Client, "post", Killed, is_job))
    with pytest.raises(Killed):
        tenant.launch()
    (left,) = tenant.tenant.jobs()
    tenant.tenant.engine.build(b"other weights")
    done = tenant.launch()
    assert done.job.id != left
    assert tenant.tenant.funded() == [done.job.id]
    assert any(f"as job {left} broke off, which is not paid for" in line for line in tenant.told)


def test_a_job_that_was_cancelled_meanwhile_is_not_paid(tenant: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(*after(Client, "post", Killed, is_job))
    with pytest.raises(Killed):
        tenant.launch()
    (left,) = tenant.tenant.jobs()
    client = tenant.client()
    client.post(f"/v1/jobs/{left}/cancel", JobOut)
    order = own_order(tenant.wallet(), client.get(f"/v1/jobs/{left}", JobOut))
    client.close()
    tenant.market.send(tenant.market.tenant, tenant.market.escrow.cancel(order))
    assert tenant.launch().job.id != left


def test_an_order_about_to_expire_is_signed_anew(tenant: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(*after(Client, "post", Killed, is_job))
    with pytest.raises(Killed):
        tenant.launch(lifetime="1h")
    (left,) = tenant.tenant.jobs()
    monkeypatch.setattr("everlease.cli.launch.time.time", lambda real=__import__("time").time: real() + 2000)
    assert tenant.launch(lifetime="1h").job.id != left


def test_new_leaves_what_broke_off(tenant: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(*after(Client, "post", Killed, is_job))
    with pytest.raises(Killed):
        tenant.launch()
    (left,) = tenant.tenant.jobs()
    assert tenant.launch(new=True).job.id != left
    assert tenant.launch().job.id == left


def test_a_damaged_note_of_a_launch_is_no_launch(tenant: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(*after(Launches, "begin", Killed))
    with pytest.raises(Killed):
        tenant.launch()
    (noted,) = tenant.wallet().folder.glob("launches/0x*.json")
    noted.write_text("{")
    tenant.launch()
    assert len(tenant.tenant.funded()) == 1
    assert list(tenant.wallet().folder.glob("launches/0x*")) == []


@pytest.mark.parametrize(
    ("changes", "code", "says"),
    [
        ({"deposit": "0.01"}, ExitCode.MONEY, "deposit: 0.01 can't open a lease at max_price_per_hour 0.50"),
        ({"deposit": "5000"}, ExitCode.MONEY, "this takes 5000.00"),
        ({"max_price_per_hour": "100000", "deposit": "2"}, ExitCode.MONEY, "or lower the price"),
        ({"deposit": "1e24"}, ExitCode.INVALID, "are at most"),
        ({"lifetime": "5000d"}, ExitCode.INVALID, "lifetime: 432000000 s is too long"),
        ({"lifetime": "5s"}, ExitCode.INVALID, "lifetime: 5 s is too short: give at least 60 s"),
        ({"resources": {"cpus": 64}}, ExitCode.UNAVAILABLE, "no host of this market is large enough, of 1 that it"),
        ({"resources": {"gpus": 1}}, ExitCode.UNAVAILABLE, "the job wants 1 GPUs, the host has 0"),
    ],
)
def test_nothing_is_uploaded_for_what_can_not_be(
    tenant: Person, changes: dict[str, Any], code: ExitCode, says: str
) -> None:
    tenant.market.stake()
    node = FakeNode(tenant.tenant.service, tenant.market, tenant.market.node, tenant.market.provider)
    node.connect()
    try:
        with pytest.raises(CliError, match=says) as refused:
            tenant.launch(**changes)
    finally:
        node.close()
    assert refused.value.code == code
    assert (tenant.tenant.engine.saved, tenant.tenant.jobs()) == (0, [])


def test_a_wallet_without_gas_uploads_nothing(tenant: Person) -> None:
    tenant.market.anvil.rpc("anvil_setBalance", tenant.market.tenant.address, "0x1")
    with pytest.raises(CliError, match="holds 1 wei for gas") as refused:
        tenant.launch()
    assert (refused.value.code, tenant.tenant.engine.saved) == (ExitCode.MONEY, 0)


def test_contracts_of_another_market_are_refused_before_the_upload(tenant: Person) -> None:
    from everlease.chain.deploy import deploy_escrow

    other = deploy_escrow(tenant.market.chain, tenant.market.provider, tenant.market.deployment.terms)
    object.__setattr__(tenant.market, "deployment", other)
    with pytest.raises(CliError, match="the marketplace works with escrow"):
        tenant.launch()
    assert tenant.tenant.engine.saved == 0


def test_a_job_may_queue_for_a_host_that_is_not_there(tenant: Person) -> None:
    tenant.market.stake()
    node = FakeNode(tenant.tenant.service, tenant.market, tenant.market.node, tenant.market.provider)
    node.connect()
    assert tenant.launch().job.id
    assert "no host can take this job now: it will wait for one" not in tenant.told
    assert tenant.launch(queue=True, resources={"cpus": 64}).job.id
    assert "no host can take this job now: it will wait for one" in tenant.told
    node.close()


def test_a_top_up_that_was_interrupted_is_not_paid_twice(tenant: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    job, held = tenant.launch().job.id, tenant.tenant.held()
    monkeypatch.setattr(*after(RpcChain, "send_raw", Killed))
    with pytest.raises(Killed):
        top_up(tenant.wallet(), job, DOLLAR)
    top_up(tenant.wallet(), job, DOLLAR)
    assert tenant.tenant.held() == held - DOLLAR
    top_up(tenant.wallet(), job, DOLLAR)
    assert tenant.tenant.held() == held - 2 * DOLLAR
