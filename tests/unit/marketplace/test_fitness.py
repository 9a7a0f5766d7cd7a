"""Which hosts are asked to bid."""

from typing import Any

import pytest

from everlease.domain.compat import host_traits
from everlease.domain.jobspec import Resources
from marketplace.gateway.fitness import unfit
from tests.support.marketplace import FACTS, REQUIREMENTS

SMALL = Resources(gpus=0, cpu_millis=1000, memory_bytes=1 << 30, disk_bytes=1 << 30)


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
    reason = unfit(FACTS, resources, "process", None)
    assert reason is not None
    assert word in reason


def test_process_mode_needs_a_host_that_can_checkpoint_processes() -> None:
    facts = {**FACTS, "runtime": {**FACTS["runtime"], "process_mode": False, "reason": "CRIU is missing"}}
    assert unfit(facts, SMALL, "process", None) == "CRIU is missing"
    assert unfit(facts, SMALL, "files", None) is None


def test_a_restore_is_matched_against_the_checkpoint_in_process_mode_only() -> None:
    needs = {**REQUIREMENTS, "cpu_flags": ["amx"]}
    reason = unfit(FACTS, SMALL, "process", needs)
    assert reason is not None
    assert "amx" in reason
    assert unfit(FACTS, SMALL, "files", needs) is None


@pytest.mark.parametrize("facts", [{}, {"gpus": None}, {**FACTS, "runtime": "none"}, {**FACTS, "cores": "many"}])
def test_garbled_facts_make_a_host_unfit_and_break_nothing(facts: dict[str, Any]) -> None:
    assert unfit(facts, SMALL, "process", REQUIREMENTS) is not None


def test_traits_name_the_first_gpu() -> None:
    facts = {**FACTS, "gpus": [{"model": "H100"}], "gpu_driver": "570"}
    assert (host_traits(facts).gpu_model, host_traits(facts).gpu_driver) == ("H100", "570")
