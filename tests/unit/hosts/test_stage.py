"""What a scenario takes for proof: steps after the act, and a campaign that really killed."""

from typing import Any

import pytest
from hosts.inside import LEAST_KILLS, TARGETS, judged
from hosts.payload import Step
from hosts.stage import Broken, Mark, made_since


def step(boot: float) -> Step:
    return Step(7, "00", boot, restored=False)


def test_steps_of_before_the_act_prove_nothing() -> None:
    mark = Mark(fence=3, boot=100.0)
    assert not made_since(mark, 3, step(99.9))
    assert made_since(mark, 3, step(100.1))


def test_steps_under_a_later_fence_come_from_another_clock() -> None:
    assert made_since(Mark(fence=3, boot=100.0), 4, step(5.0))
    assert not made_since(Mark(fence=3, boot=100.0), 2, step(500.0))


def report(**changes: Any) -> dict[str, Any]:
    kills = dict.fromkeys(TARGETS, LEAST_KILLS)
    return {"kills": kills, "steps": 9, "wrong": [], "latest_step_s": -1.0, "to_frozen_longest_s": 0.1} | changes


def test_a_campaign_is_judged_by_its_report() -> None:
    assert "28 kills, 9 steps" in judged(report())


@pytest.mark.parametrize("changes", [{"wrong": ["round 1: late"]}, {"kills": {"agent": 40}}, {"steps": 0}])
def test_a_campaign_that_saw_a_violation_or_killed_too_little_is_no_proof(changes: dict[str, Any]) -> None:
    with pytest.raises(Broken):
        judged(report(**changes))
