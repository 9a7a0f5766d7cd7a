"""What a checkpoint says it needs, per job, and what a node refuses before it fetches a byte."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from everlease.domain import compat
from provider_agent import commit, terms
from provider_agent.errors import StepFailed
from provider_agent.host import Host
from provider_agent.records import JobRecord

FACTS: dict[str, Any] = {
    **{"cpu_vendor": "GenuineIntel", "cpu_flags": ["avx2", "sse2"], "xsave_size": 2696, "kernel": "6.12.9"},
    "runtime": {"criu": "4.2.1", "runc": "1.1.5", "cgroup": "v2", "apparmor": False},
    "gpus": [{"uuid": "g1", "model": "A100"}, {"uuid": "g2", "model": "H100"}],
    "gpu_driver": "570",
}
HOST = cast("Host", SimpleNamespace(facts=FACTS))


def needs(*gpus: str) -> dict[str, str]:
    return commit.needs(HOST, cast("JobRecord", SimpleNamespace(gpus=gpus)))


def test_a_checkpoint_needs_the_gpus_that_its_job_held() -> None:
    assert (needs()["gpu_model"], needs()["gpu_driver"]) == ("", "")
    assert (needs("g2")["gpu_model"], needs("g2")["gpu_driver"]) == ("H100", "570")
    assert compat.why_not(needs(), {**FACTS, "gpus": [], "gpu_driver": ""}) is None


@pytest.mark.parametrize(
    ("change", "word"),
    [({"cpu_flags": "avx2 avx512f sse2"}, "avx512f"), ({"kernel": "6.18.1"}, "older"), ({"cgroup": "v1"}, "cgroup")],
)
def test_what_can_not_live_here_is_refused(change: dict[str, str], word: str) -> None:
    terms.check_restorable(HOST, None)
    terms.check_restorable(HOST, needs())
    with pytest.raises(StepFailed) as refused:
        terms.check_restorable(HOST, needs() | change)
    assert word in refused.value.sentence
    assert refused.value.data == {"unfit": refused.value.sentence}
    assert not refused.value.retryable
