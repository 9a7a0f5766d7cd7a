"""Steps out of what a job printed, over hosts that repeat each other and are cut off in the middle of a line."""

import json
from pathlib import Path
from typing import Any

from everlease.demo.measure import lost_work
from everlease.demo.steps import Step, from_docker, from_pieces, merge, parse, redone


def piece(fence: int, offset: int, text: str, at: float, stream: str = "stdout") -> dict[str, Any]:
    return {"fence": fence, "offset": offset, "text": text, "at": at, "stream": stream}


def line(number: int) -> str:
    return f"{number} {(1 / number).hex()} {1 / number:.6f}\n"


def test_a_line_holds_step_and_exact_loss() -> None:
    assert parse("7 0x1.8p+0 1.500000") == (7, 1.5)
    assert parse("training on 10 MB of data, process 1") is None
    assert parse("done") is None


def test_lines_split_between_pieces_are_joined() -> None:
    text = line(1) + line(2)
    pieces = [piece(1, 9, text[9:], 12.0), piece(1, 0, text[:9], 11.0), piece(1, 0, "9 0x1p+0 1", 11.0, "stderr")]
    assert [(step.number, step.at) for step in from_pieces(pieces)] == [(1, 12.0), (2, 12.0)]


def test_a_half_line_of_a_dead_host_is_not_joined_to_the_next_hosts() -> None:
    found = from_pieces([piece(1, 0, line(1) + "2 0x1.", 10.0), piece(2, 0, line(2), 20.0)])
    assert [(step.fence, step.number) for step in found] == [(1, 1), (2, 2)]


def test_a_hosts_own_log_is_read_past_a_torn_last_line(tmp_path: Path) -> None:
    folder = tmp_path / "containers" / ("a" * 64)
    folder.mkdir(parents=True)
    whole = json.dumps({"log": line(3), "stream": "stdout", "time": "2026-01-02T03:04:05.123456789Z"})
    (folder / f"{'a' * 64}-json.log").write_text(whole + "\n" + whole[:30])
    (step,) = from_docker(tmp_path, 4)
    assert (step.fence, step.number) == (4, 3)
    assert step.at == 1767323045.123456


def test_a_hosts_own_log_replaces_what_the_marketplace_kept() -> None:
    kept = [Step(1.0, 1, 1, 0.5), Step(9.0, 2, 2, 0.4)]
    own = [Step(1.0, 1, 1, 0.5), Step(1.1, 1, 2, 0.4)]
    assert [step.at for step in merge(kept, {1: own})] == [1.0, 1.1, 9.0]


def test_repeated_steps_are_counted_and_priced() -> None:
    before = [Step(float(n), 1, n, 0.0) for n in range(1, 11)]
    after = [Step(20.0 + n, 2, n, 0.0) for n in range(8, 12)]
    assert redone([*before, *after]) == 3
    assert lost_work(before, after) == 3.0
    assert lost_work(before, [Step(30.0, 2, 11, 0.0)]) == 0.0
    assert lost_work([], after) is None
