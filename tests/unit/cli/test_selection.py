"""Which job a command means."""

from typing import Any

import pytest

from everlease.cli.errors import CliError, ExitCode
from everlease.cli.selection import find_job
from everlease.wire.http import JobList, JobOut
from tests.support.marketplace import SPEC

ORDER: dict[str, Any] = {
    **{"tenant": "0x" + "11" * 20, "watcher": "0x" + "22" * 20, "job_spec": "0x" + "5b" * 32},
    **dict.fromkeys(("max_rate_per_hour", "deposit", "min_collateral", "epoch_fee", "deadline", "nonce"), 1),
    **{"max_silence": 5, "max_epochs": 20},
}


def job(number: int, name: str = "train", state: str = "RUNNING") -> JobOut:
    nothing = dict.fromkeys(("wish", "ended_at", "exit_code", "node", "mode", "last_checkpoint_at", "loss_bound_s"))
    zero = dict.fromkeys(("epoch", "fence", "recoveries", "last_checkpoint_seq", "image_bytes"), 0)
    return JobOut(
        id=f"0x{number:04x}" + "0" * 60, name=name, tenant=ORDER["tenant"], state=state, reason="", created_at=number,
        funded=True, spec=SPEC, order=ORDER, image_manifest=None, **nothing, **zero,
    )  # type: ignore[arg-type]  # fmt: skip


class Listing:
    """A context whose marketplace has these jobs, two a page."""

    def __init__(self, *jobs: JobOut) -> None:
        self._jobs = jobs

    @property
    def market(self) -> "Listing":
        return self

    def get(self, path: str, model: type, params: dict[str, Any] | None = None) -> Any:
        if path != "/v1/jobs":
            return next(job for job in self._jobs if path.endswith(job.id))
        start = int((params or {}).get("cursor") or 0)
        more = str(start + 2) if len(self._jobs) > start + 2 else None
        return JobList(items=list(self._jobs[start : start + 2]), next_cursor=more)


def find(wanted: str, *jobs: JobOut) -> str:
    return find_job(Listing(*jobs), wanted).id  # type: ignore[arg-type]


@pytest.mark.parametrize("wanted", ["", " ", "0", "0x", "0x1", "0x12", "1", "1234", "a", "x", "trai", "0xzzzz"])
def test_less_than_a_name_or_four_digits_selects_nothing(wanted: str) -> None:
    with pytest.raises(CliError, match="you have no job") as refused:
        find(wanted, job(0x1234))
    assert refused.value.code == ExitCode.NOT_FOUND


def test_name_whole_id_and_the_first_digits_of_an_id_select_one() -> None:
    jobs = (job(0x1234, "a"), job(0x5678, "b"), job(0x9ABC, "c"))
    for wanted in ("c", "0x9abc", "0x9ABC00", jobs[2].id, jobs[2].id.upper().replace("0X", "0x")):
        assert find(wanted, *jobs) == jobs[2].id


def test_a_name_of_one_letter_is_a_name() -> None:
    assert find("a", job(1, "a"), job(2, "ab")) == job(1).id


@pytest.mark.parametrize("state", ["SUCCEEDED", "FAILED", "CANCELLED"])
def test_the_living_one_of_a_name_is_meant(state: str) -> None:
    assert find("train", job(3, state=state), job(2, state="HIBERNATED"), job(1, state=state)) == job(2).id


def test_several_are_listed_with_their_ids() -> None:
    with pytest.raises(CliError) as refused:
        find("train", job(4, state="FAILED"), job(3), job(2, state="EXHAUSTED"), job(1, "other"))
    told = str(refused.value)
    assert refused.value.code == ExitCode.INVALID
    assert told.startswith("'train' fits 2 jobs")
    assert job(3).id in told
    assert f"{job(2).id}  train  EXHAUSTED" in told
    assert job(4).id not in told, "ended ones are not meant"


def test_several_that_ended_are_listed_too() -> None:
    with pytest.raises(CliError) as refused:
        find("train", *(job(number, state="FAILED") for number in range(1, 31)))
    assert str(refused.value).count("\n  0x") == 10
    assert "and 20 more" in str(refused.value)
