"""The bench's witness must convict: copies that overlap, and steps that differ."""

import json
import time

from hosts.payload import Step, parse
from hosts.proof import Run, Witness

BOOT = "01234567-89ab-cdef-0123-456789abcdef"


class Guest:
    """A guest that answers what a witness asks; its boot clock is the bench's own."""

    name = "host"

    def __init__(self, logs: dict[str, list[float]]) -> None:
        self._logs = logs

    def must(self, script: str) -> str:
        if "boot_id" in script:
            return BOOT
        if "uptime" in script:
            return f"{time.monotonic()} 0"
        return "".join(
            f"== {BOOT}/{container * 64}-json.log\n"
            + "".join(json.dumps({"log": f"{n} {n:016x} {int(boot * 1e9)} 0\n"}) + "\n" for n, boot in enumerate(times))
            for container, times in self._logs.items()
        )


def ran(container: str, first: float, last: float, *numbers: int, error: float = 0.1, restored: bool = False) -> Run:
    steps = tuple(Step(number, f"{number:016x}", 0.0, restored) for number in numbers)
    return Run("host", container, first, last, error, steps)


def witness(*runs: Run) -> Witness:
    return Witness({run.container: run for run in runs})


def test_copies_one_after_the_other_are_fine() -> None:
    assert witness(ran("b", 20.0, 30.0, 5), ran("a", 0.0, 20.1, 1)).overlaps() == []


def test_an_overlap_beyond_the_clocks_error_is_named() -> None:
    (found,) = witness(ran("a", 0.0, 20.5, 1), ran("b", 20.0, 30.0, 5)).overlaps()
    assert "0.50 s" in found


def test_a_copy_inside_another_is_found_though_one_more_begins_between() -> None:
    assert witness(ran("a", 0.0, 100.0), ran("b", 10.0, 11.0), ran("c", 50.0, 60.0)).overlaps() != []


def test_a_long_copy_convicts_every_later_one() -> None:
    assert len(witness(ran("a", 0.0, 100.0), ran("b", 10.0, 11.0), ran("c", 50.0, 60.0)).overlaps()) == 2


def test_a_step_that_differs_is_named() -> None:
    reference = {1: f"{1:016x}", 2: f"{99:016x}"}
    (found,) = witness(ran("a", 0.0, 1.0, 1, 2)).wrong(reference)
    assert "step 2" in found


def test_lines_of_the_job() -> None:
    assert parse("12 00000000000000ff 1500000000 0\n") == Step(12, "00000000000000ff", 1.5, restored=False)
    assert parse("12 00000000000000ff 1500000000 1\n") == Step(12, "00000000000000ff", 1.5, restored=True)
    assert parse("starting") is None


def test_what_another_job_printed_before_is_no_copy_of_this_one() -> None:
    now = time.monotonic()
    seen = Witness(since=now - 50)
    seen.look(Guest({"a": [now - 100, now - 20], "b": [now - 40, now - 30]}))  # type: ignore[arg-type]
    assert list(seen.runs) == ["b" * 64]
    assert seen.overlaps() == []


def test_a_copy_that_was_not_restored_is_named() -> None:
    (found,) = witness(ran("a", 0.0, 9.0, 1, 2, 3), ran("b", 20.0, 30.0, 1, 2)).begun_anew()
    assert "was started at step 1, after step 3" in found


def test_a_checkpoint_may_be_older_than_the_first_step() -> None:
    assert witness(ran("a", 0.0, 9.0, 1, 2, 3), ran("b", 20.0, 30.0, 1, 2, restored=True)).begun_anew() == []


def test_a_copy_may_repeat_what_was_made_since_the_checkpoint_but_no_more() -> None:
    before = ran("a", 0.0, 9.0, 1, 800), ran("a", 0.0, 9.0, 1, 900)
    after = ran("b", 20.0, 30.0, 400, 500, restored=True)
    assert witness(before[0], after).begun_anew() == []
    assert witness(before[1], after).begun_anew() != []
