"""Which hosts are asked to bid."""

from dataclasses import replace
from typing import Any

import pytest

from everlease.domain.compat import host_traits
from everlease.domain.jobspec import CheckpointMode, CheckpointPolicy, Resources, from_dict
from marketplace.gateway.fitness import unfit
from tests.support.marketplace import FACTS, REQUIREMENTS, SPEC

SMALL = replace(from_dict(SPEC), resources=Resources(0, 1000, 1 << 30, 1 << 30))


def test_a_host_with_room_is_fit() -> None:
    assert unfit(FACTS, SMALL, "process", None) is None
    assert unfit(FACTS, SMALL, "process", REQUIREMENTS) is None


@pytest.mark.parametrize(
    ("resources", "word"),
    [
        (Resources(1, 1000, 1 << 30, 1 << 30), "GPU"),
        (Resources(0, 64_000, 1 << 30, 1 << 30), "CPU"),
        (Resources(0, 1000, 1 << 40, 1 << 30), "memory"),
        (Resources(0, 1000, 1 << 30, 1 << 45), "disk"),
    ],
)
def test_a_host_without_room_is_told_why(resources: Resources, word: str) -> None:
    reason = unfit(FACTS, replace(SMALL, resources=resources), "process", None)
    assert reason is not None
    assert word in reason


def test_process_mode_needs_a_host_that_can_checkpoint_processes() -> None:
    facts = {**FACTS, "runtime": {**FACTS["runtime"], "process_mode": False, "reason": "CRIU is missing"}}
    assert unfit(facts, SMALL, "process", None) == "CRIU is missing"
    assert unfit(facts, SMALL, "files", None) is None


ROOT_ALONE = {**FACTS, "runtime": {**FACTS["runtime"], "other_users": False, "reason": "no other user's"}}
STRICT = CheckpointPolicy(CheckpointMode.AUTO, 300, 10)
LENIENT = replace(STRICT, fall_back_to_files=True)


@pytest.mark.parametrize("user", ["root", "0", "root:root", "0:0", "0:root"])
def test_root_needs_no_more_than_what_was_proved_for_it(user: str) -> None:
    assert unfit(ROOT_ALONE, replace(SMALL, user=user), "process", None) is None


@pytest.mark.parametrize("policy", [STRICT, LENIENT])
@pytest.mark.parametrize("user", ["1000", "nobody", "1000:0", "0:1000", "root:users", "rooted"])
def test_another_user_or_group_needs_a_host_that_was_proved_for_it(user: str, policy: CheckpointPolicy) -> None:
    job = replace(SMALL, user=user, checkpoint=policy)
    assert unfit(ROOT_ALONE, job, "process", None) == "no other user's"
    assert unfit(ROOT_ALONE, job, "files", None) is None
    assert unfit(FACTS, job, "process", None) is None


@pytest.mark.parametrize(
    ("policy", "fit"), [(STRICT, False), (LENIENT, True), (replace(STRICT, mode=CheckpointMode.PROCESS), False)]
)
def test_an_images_own_user_is_taken_for_another_where_the_order_insists(policy: CheckpointPolicy, fit: bool) -> None:
    reason = unfit(ROOT_ALONE, replace(SMALL, user="", checkpoint=policy), "process", None)
    assert reason == (
        None if fit else "the order names no user, and the image's may be another than root: no other user's"
    )


def test_a_restore_is_matched_against_the_checkpoint_in_process_mode_only() -> None:
    needs = {**REQUIREMENTS, "cpu_flags": ["amx"]}
    reason = unfit(FACTS, SMALL, "process", needs)
    assert reason is not None
    assert "amx" in reason
    assert unfit(FACTS, SMALL, "files", needs) is None


def test_a_host_that_does_not_say_whose_processes_it_can_checkpoint_is_unfit() -> None:
    facts = {**FACTS, "runtime": {name: value for name, value in FACTS["runtime"].items() if name != "other_users"}}
    assert "other_users" in str(unfit(facts, SMALL, "process", None))


@pytest.mark.parametrize("facts", [{}, {"gpus": None}, {**FACTS, "runtime": "none"}, {**FACTS, "cores": "many"}])
def test_garbled_facts_make_a_host_unfit_and_break_nothing(facts: dict[str, Any]) -> None:
    assert unfit(facts, SMALL, "process", REQUIREMENTS) is not None


def test_traits_name_the_first_gpu() -> None:
    facts = {**FACTS, "gpus": [{"model": "H100"}], "gpu_driver": "570"}
    assert (host_traits(facts).gpu_model, host_traits(facts).gpu_driver) == ("H100", "570")
