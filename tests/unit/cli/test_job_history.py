"""`job resume`: what is lacking is told before anything is asked for, and money follows once the marketplace agreed."""

import time
from contextlib import AbstractContextManager, nullcontext
from types import SimpleNamespace
from typing import Any

import pytest

from everlease.chain.views import JobOnChain, LimitsOnChain
from everlease.cli import job_history
from everlease.cli.config import Config
from everlease.cli.context import Context
from everlease.cli.errors import CliError
from everlease.domain.terms import Order
from everlease.wire.http import WishRequest
from tests.unit.cli.test_job_money import MINE, Lying, Wallet, signed

RATE, BOND = 1_000_000, 500
HOUR = 3600


class Market(Lying):
    """Keeps what was asked of it, in order with what was paid."""

    def __init__(self, state: str, done: list[str], refuses: bool) -> None:
        mine = signed(MINE, 1, state=state)
        super().__init__(mine, mine)
        self._done, self._refuses = done, refuses

    def post(self, path: str, *words: Any, **__: Any) -> Any:
        if self._refuses:
            raise CliError(5, "checkpoint 4 is not kept any more")
        body = words[1]
        assert isinstance(body, WishRequest)
        self._done.append(f"{path.rsplit('/', 1)[-1]} from {body.checkpoint_seq}")
        return self.answer


class Chain(Wallet):
    """A job's escrow as the chain has it; what is sent is kept."""

    def __init__(self, done: list[str], **escrow: Any) -> None:
        super().__init__()
        self.paid = done
        left = escrow.pop("deadline_in", 0)
        known = {"free": 0, "fees": 0, "epochs": 5, "funded": True, "active": False, "cancelled": False, **escrow}
        self.deployment.terms = SimpleNamespace(min_runtime=HOUR, bond=BOND, max_lifetime=30 * 86_400)
        self.views = SimpleNamespace(
            job=lambda job: JobOnChain(**known),
            limits=lambda order: LimitsOnChain(int(time.time()) + left, 5, RATE),
        )
        self.escrow = SimpleNamespace(extend=self._extend)
        self.chain_time = lambda: int(time.time())

    def _extend(self, order: Order, deadline: int, leases: int, rate: int) -> str:
        return f"extended by {(deadline - int(time.time()) + 30) // 86_400} days to {leases} leases"

    def turn(self) -> AbstractContextManager[None]:
        return nullcontext()

    def settle(self, intent: str = "") -> None: ...

    def send(self, intent: str, call: str) -> Any:
        self.paid.append(call)
        return SimpleNamespace(tx_hash="0x" + "bb" * 32)


def resume(state: str, *, refuses: bool = False, escrow: dict[str, Any], **options: Any) -> tuple[list[str], str]:
    """What was done, in order, and what the command ended with."""
    done: list[str] = []
    context = Context(Config())
    context.__dict__.update(market=Market(state, done, refuses), wallet=Chain(done, **escrow))
    ctx: Any = SimpleNamespace(find_root=lambda: SimpleNamespace(obj=context))
    chosen = {"seq": None, "top_up": None, "lifetime": None, "max_leases": None, **options}
    try:
        job_history.resume(ctx, signed(MINE, 1).id, **chosen)
    except CliError as error:
        return done, str(error)
    return done, ""


ENOUGH = {"free": 10 * RATE, "epochs": 4, "deadline_in": HOUR}


@pytest.mark.parametrize(
    ("escrow", "says"),
    [
        ({**ENOUGH, "deadline_in": -HOUR}, "its deadline has come: add --lifetime"),
        ({**ENOUGH, "epochs": 5}, "its 5 leases are used up: add --max-leases 15"),
        ({**ENOUGH, "free": RATE + BOND - 1}, "add --top-up"),
        (
            {**ENOUGH, "cancelled": True},
            "was cancelled on chain, so nothing can run for it again: 'job outputs' downloads",
        ),
        ({**ENOUGH, "funded": False}, "was never paid"),
    ],
)
def test_what_a_lease_would_lack_is_told_and_nothing_is_sent(escrow: dict[str, Any], says: str) -> None:
    done, error = resume("SUCCEEDED", escrow=escrow)
    assert says in error
    assert done == []


@pytest.mark.parametrize("state", ["SUCCEEDED", "HIBERNATED"])
@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"max_leases": 4}, "the number of leases is 5 and can't be lowered to 4"),
        ({"lifetime": "30m"}, "can't be lowered"),
        ({"lifetime": "31d"}, "ask for less"),
        ({"top_up": "0"}, "the amount is zero"),
    ],
)
def test_what_the_escrow_would_refuse_is_told_before_anything_is_sent(
    options: dict[str, Any], says: str, state: str
) -> None:
    done, error = resume(state, escrow=ENOUGH, **options)
    assert says in error
    assert done == []


def test_a_hibernated_jobs_terms_are_looked_at_too() -> None:
    done, error = resume("HIBERNATED", escrow={**ENOUGH, "epochs": 5})
    assert (done, "add --max-leases 15" in error) == ([], True)
    assert resume("HIBERNATED", escrow=ENOUGH) == (["resume from None"], "")


@pytest.mark.parametrize(
    ("state", "says"),
    [
        ("CANCELLED", "train is CANCELLED and stays so"),
        ("CANCELLING", "train is CANCELLING and stays so"),
        ("PENDING", "'everlease job fund 0x"),
        ("RUNNING", "train is RUNNING, and only a job that is EXHAUSTED, FAILED, HIBERNATED, PARKED, SUCCEEDED"),
    ],
)
def test_a_state_that_can_not_be_resumed_is_told_before_the_terms(state: str, says: str) -> None:
    lacking = {"free": 0, "epochs": 5, "deadline_in": -HOUR, "funded": state != "PENDING"}
    done, error = resume(state, escrow=lacking, top_up="0")
    assert says in error
    assert done == []


def test_an_ended_job_with_money_left_goes_on_by_one_request() -> None:
    assert resume("SUCCEEDED", escrow=ENOUGH, seq=12) == (["resume from 12"], "")
    assert resume("SUCCEEDED", escrow=ENOUGH, seq=0) == (["resume from 0"], "")
    assert resume("FAILED", escrow={**ENOUGH, "free": 0, "active": True}) == (["resume from None"], ""), (
        "what its last lease has set aside comes back"
    )


def test_where_the_marketplace_refuses_nothing_is_paid() -> None:
    assert resume("FAILED", refuses=True, escrow=ENOUGH, top_up="1") == ([], "checkpoint 4 is not kept any more")


def test_time_leases_and_money_come_in_the_same_call_after_the_request() -> None:
    escrow = {"free": 0, "epochs": 5, "deadline_in": -HOUR}
    done, error = resume("SUCCEEDED", escrow=escrow, seq=12, top_up="2", lifetime="3d", max_leases=15)
    assert error == ""
    assert done[:2] == ["resume from 12", "extended by 3 days to 15 leases"]
    assert done[2].startswith("2.00 more for job")
    assert len(done) == 3
