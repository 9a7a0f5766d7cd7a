"""Following ends where nothing goes on without the tenant, and says why."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from everlease.cli import follow
from everlease.cli import job as commands
from everlease.cli.config import Config
from everlease.cli.context import Context
from everlease.cli.errors import CliError, ExitCode
from everlease.domain.job import WAITS_FOR_RESUME
from everlease.wire.http import EventList, EventOut, JobOut
from tests.unit.cli.test_selection import job

HELD = f"{WAITS_FOR_RESUME}: 3 leases came to nothing"


class Market:
    """A job that is in one state after the other, each time that it is looked at; its events come by a stream."""

    def __init__(self, *states: dict[str, Any], arriving: tuple[dict[str, Any], ...] = ()) -> None:
        self._states = [job(1).model_copy(update=state) for state in states]
        self._arriving, self.streamed = arriving, 0

    def get(self, path: str, model: type, params: dict[str, Any] | None = None) -> Any:
        if model is EventList:
            return EventList(items=[], next_id=0)
        return self._states.pop(0) if len(self._states) > 1 else self._states[0]

    @contextmanager
    def stream(self, path: str, *, after: int) -> Iterator[Iterator[Any]]:
        self.streamed += 1
        assert self.streamed == 1, "it would wait for ever"
        yield (
            SimpleNamespace(data=EventOut(id=number, at=0.0, kind="job.x", data=data))
            for number, data in enumerate(self._arriving, 1)
        )


def followed(market: Any) -> JobOut:
    return follow.follow_events(market, job(1).id, quiet=True)


@pytest.mark.parametrize(
    ("state", "reason", "says"),
    [
        ("HIBERNATED", "", "the job is HIBERNATED; 'everlease job resume"),
        ("PARKED", "exit code 3", "the job is PARKED: exit code 3; 'everlease job resume"),
        ("EXHAUSTED", "the deadline has come", "'job top-up' gives it money, 'job extend' time and leases"),
        ("WAITING_CAPACITY", HELD, "3 leases came to nothing; 'everlease job resume"),
    ],
)
def test_a_job_that_waits_for_its_tenant_is_followed_no_longer(state: str, reason: str, says: str) -> None:
    there = {"state": state, "reason": reason}
    market = Market(there)
    assert (followed(market).state, market.streamed) == (state, 0)
    came = Market({"state": "RUNNING"}, there, arriving=({"to": "RUNNING"}, {"to": state, "reason": reason}))
    over = followed(came)
    assert (over.state, came.streamed) == (state, 1)
    assert says in follow.why_over(over)


def test_one_that_waits_for_hosts_is_followed_on() -> None:
    waiting = {"state": "WAITING_CAPACITY", "reason": f"no node took the job: {HELD}"}
    market = Market(waiting, {"state": "SUCCEEDED"}, arriving=({"to": "WAITING_CAPACITY", "reason": "no bid"},))
    assert (followed(market).state, market.streamed) == ("SUCCEEDED", 1)


def test_one_that_was_asked_to_resume_is_followed_into_what_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "RECONNECT_S", 0.0)
    asked = {"state": "HIBERNATED", "wish": "resume"}
    assert followed(Market(asked, asked, {"state": "SUCCEEDED"})).state == "SUCCEEDED"
    assert followed(Market(asked, {"state": "HIBERNATED"})).state == "HIBERNATED", "the wish was refused"


def test_a_launch_that_waits_fails_with_8_and_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    context = Context(Config())
    context.__dict__.update(market=Market({"state": "WAITING_CAPACITY", "reason": HELD}), wallet=None)
    ctx: Any = SimpleNamespace(find_root=lambda: SimpleNamespace(obj=context))
    monkeypatch.setattr(commands, "load_job_file", lambda file: None)
    monkeypatch.setattr(commands, "LocalImages", lambda socket: SimpleNamespace(close=lambda: None))
    launched = SimpleNamespace(job=job(1), fund_tx=None)
    monkeypatch.setattr(commands, "launch_job", lambda *_: launched)
    with pytest.raises(CliError, match="the job is WAITING_CAPACITY: it waits for 'job resume'") as failed:
        commands.launch(ctx, "job.yaml", wait=True, new=False, queue=False)  # type: ignore[arg-type]
    assert failed.value.code is ExitCode.JOB_FAILED
