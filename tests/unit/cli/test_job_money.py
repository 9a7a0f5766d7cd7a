"""Commands that pay, against a marketplace that answers with what was not asked for."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from everlease.chain.typed_data import Domain, job_id
from everlease.cli import job_money
from everlease.cli.config import Config
from everlease.cli.context import Context
from everlease.cli.errors import CliError, ExitCode
from everlease.domain.jobspec import spec_hash
from everlease.wire.http import JobOut
from everlease.wire.spec import SpecModel
from everlease.wire.terms import OrderModel
from tests.support.marketplace import SPEC
from tests.unit.cli.test_selection import ORDER, Listing, job

MINE, OTHERS = "0x" + "11" * 20, "0x" + "33" * 20
ESCROW = Domain(31337, "0x" + "ee" * 20)


def signed(tenant: str, nonce: int, name: str = "train", state: str = "RUNNING") -> JobOut:
    """A job whose id is its order's and whose order has its spec."""
    spec = SpecModel.model_validate({**SPEC, "name": name})
    order = OrderModel.model_validate(
        {**ORDER, "tenant": tenant, "nonce": nonce, "job_spec": spec_hash(spec.to_domain())}
    )
    found = job(nonce, name, state)
    changed = {"id": job_id(ESCROW, order.to_domain()), "order": order, "spec": spec, "tenant": tenant}
    return found.model_copy(update=changed)


class Wallet:
    """Holds enough, finds every job funded, and keeps what it was asked to pay."""

    address = MINE

    def __init__(self) -> None:
        self.paid: list[str] = []
        self.deployment = SimpleNamespace(escrow_domain=ESCROW, escrow=ESCROW.contract)
        self.views = SimpleNamespace(job=lambda job: SimpleNamespace(funded=True, cancelled=False))

    def require_balance(self, amount: int) -> None: ...

    def pay(self, intent: str, *_: Any) -> SimpleNamespace:
        self.paid.append(intent)
        return SimpleNamespace(tx_hash="0x" + "aa" * 32)


class Lying(Listing):
    """Answers every request for one job with the same."""

    def __init__(self, answer: JobOut, *jobs: JobOut) -> None:
        super().__init__(*jobs)
        self.answer, self.posted = answer, list[str]()

    def get(self, path: str, model: type, params: dict[str, Any] | None = None) -> Any:
        return self.answer if path != "/v1/jobs" else super().get(path, model, params)

    def post(self, path: str, *_: Any, **__: Any) -> None:
        self.posted.append(path)


def top_up(market: Lying, wanted: str) -> tuple[list[str], list[str], CliError | None]:
    """What was paid, what was posted, and what the command ended with."""
    context, wallet = Context(Config()), Wallet()
    context.__dict__.update(market=market, wallet=wallet)
    ctx: Any = SimpleNamespace(find_root=lambda: SimpleNamespace(obj=context))
    try:
        job_money.top_up(ctx, wanted, "1.00", resume=True)
    except CliError as error:
        return wallet.paid, market.posted, error
    return wallet.paid, market.posted, None


def test_a_top_up_of_ones_own_job_is_paid() -> None:
    mine = signed(MINE, 1)
    paid, _, error = top_up(Lying(mine, mine), mine.id)
    assert (paid, error) == ([f"1.00 more for job {mine.id}"], None)


def test_a_top_up_of_a_parked_job_resumes_it_only_where_that_is_wished() -> None:
    mine = signed(MINE, 1, state="PARKED")
    market = Lying(mine, mine)
    paid, posted, error = top_up(market, mine.id)
    assert (paid, posted, error) == ([f"1.00 more for job {mine.id}"], [f"/v1/jobs/{mine.id}/resume"], None)


@pytest.mark.parametrize("state", ["RUNNING", "HIBERNATED"])
@pytest.mark.parametrize("by", ["id", "name", "digits"])
def test_anothers_job_in_place_of_ones_own_gets_nothing(by: str, state: str) -> None:
    mine, others = signed(MINE, 1), signed(OTHERS, 2, state=state)
    wanted = {"id": mine.id, "name": "train", "digits": others.id[:8]}[by]
    paid, posted, error = top_up(Lying(others, others), wanted)
    assert (paid, posted) == ([], [])
    assert error is not None
    assert error.code == ExitCode.REFUSED


@pytest.mark.parametrize("lie", ["id", "tenant", "name"])
def test_what_the_marketplace_says_of_a_job_is_held_against_its_order(lie: str) -> None:
    mine, others = signed(MINE, 1, "small"), signed(OTHERS, 2, "train")
    answer = {
        "id": mine.model_copy(update={"id": others.id}),
        "tenant": others.model_copy(update={"order": mine.order, "tenant": MINE}),
        "name": mine.model_copy(update={"name": "train"}),
    }[lie]
    paid, posted, error = top_up(Lying(answer, answer), "small" if answer.name == "small" else "train")
    assert (paid, posted) == ([], [])
    assert error is not None
    assert error.code == ExitCode.REFUSED


def test_another_spec_under_the_name_is_refused() -> None:
    mine = signed(MINE, 1, "small")
    renamed = SpecModel.model_validate({**SPEC, "name": "train"})
    answer = mine.model_copy(update={"name": "train", "spec": renamed})
    paid, _, error = top_up(Lying(answer, answer), "train")
    assert (paid, error is not None) == ([], True)
    assert replace(answer.spec.to_domain(), name="small") == mine.spec.to_domain()
