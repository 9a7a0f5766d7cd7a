"""What a restore depends on, and the canonical spec."""

from dataclasses import asdict, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everlease.domain import jobspec
from everlease.domain.compat import HostTraits, host_traits, mismatch, needs_of, release, traits_from, why_not
from everlease.domain.jobspec import CheckpointMode, CheckpointPolicy, JobSpec, OnFailure, Resources

HOST = HostTraits("GenuineIntel", frozenset({"avx", "avx2"}), 2696, "6.1.0-18", "4.2", "1.1.5", "v2", True)


def test_a_host_matches_itself_and_better_ones() -> None:
    assert mismatch(HOST, HOST) is None
    better = replace(HOST, cpu_flags=HOST.cpu_flags | {"avx512f"}, kernel="6.12.1", criu="4.10")
    assert mismatch(HOST, better) is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"cpu_vendor": "AuthenticAMD"}, "AuthenticAMD"),
        ({"cpu_flags": frozenset({"avx"})}, "lacks avx2"),
        ({"xsave_size": 832}, "832 on the host"),
        ({"kernel": "5.15.0"}, "older"),
        ({"criu": "3.19"}, "older"),
        ({"cgroup": "v1"}, "cgroup v2"),
        ({"apparmor": False}, "taken with AppArmor"),
    ],
)
def test_what_keeps_a_checkpoint_from_a_host(change: dict[str, object], words: str) -> None:
    reason = mismatch(HOST, replace(HOST, **change))  # type: ignore[arg-type]
    assert reason is not None
    assert words in reason


def test_gpu_state_needs_the_same_gpu_and_driver() -> None:
    gpu = replace(HOST, gpu_model="H100", gpu_driver="570")
    assert mismatch(gpu, gpu) is None
    assert mismatch(gpu, replace(gpu, gpu_driver="580")) is not None
    assert mismatch(HOST, gpu) is None


FACTS = {
    **{"cpu_vendor": "GenuineIntel", "cpu_flags": ["avx2", "pti", "sse2"], "xsave_size": 2696, "kernel": "6.1.0-18"},
    "runtime": {"criu": "4.2", "runc": "1.1.5", "cgroup": "v2", "apparmor": True},
    "gpus": [{"model": "H100"}, {"model": "A100"}],
    "gpu_driver": "570",
}


def test_a_job_without_a_gpu_needs_none_though_its_host_has_some() -> None:
    assert host_traits(FACTS).gpu_model == "H100"
    without = {**FACTS, "gpus": [], "gpu_driver": ""}
    assert (needs_of(FACTS, 0)["gpu_model"], needs_of(FACTS, 0)["gpu_driver"]) == ("", "")
    assert why_not(needs_of(FACTS, 0), without) is None
    reason = why_not(needs_of(FACTS, 1), without)
    assert reason is not None
    assert "H100" in reason


def test_a_checkpoint_goes_only_between_hosts_that_both_confine_by_apparmor_or_both_do_not() -> None:
    without = {**FACTS, "runtime": {**FACTS["runtime"], "apparmor": False}}  # type: ignore[dict-item]
    assert [needs_of(facts, 0)["apparmor"] for facts in (FACTS, without)] == ["true", "false"]
    assert why_not(needs_of(without, 0), without) is None
    assert "without AppArmor, the host runs containers with it" in str(why_not(needs_of(without, 0), FACTS))
    assert "with AppArmor, the host runs containers without it" in str(why_not(needs_of(FACTS, 0), without))
    unsaid = {name: value for name, value in needs_of(FACTS, 0).items() if name != "apparmor"}
    assert "incomplete" in str(why_not(unsaid, FACTS))
    assert "incomplete" in str(why_not({**unsaid, "apparmor": "maybe"}, FACTS))


def test_flags_that_only_a_kernel_uses_keep_no_checkpoint_from_a_newer_kernel() -> None:
    newer = {**FACTS, "kernel": "6.12.9", "cpu_flags": ["avx2", "sse2"]}
    assert why_not(needs_of(FACTS, 0), newer) is None
    assert "avx2" in str(why_not(needs_of(FACTS, 0), {**newer, "cpu_flags": ["sse2"]}))


def test_what_is_incomplete_is_refused_and_nothing_needed_is_met() -> None:
    assert why_not(None, {}) is None
    assert "incomplete" in str(why_not({"kernel": "6.1"}, FACTS))
    assert "incomplete" in str(why_not(needs_of(FACTS, 0), {**FACTS, "runtime": "none"}))


def test_releases_and_traits_are_read_leniently_and_holes_are_named() -> None:
    assert release("6.18.44-fc-v769") == (6, 18, 44)
    assert release("unknown") == ()
    assert traits_from({**asdict(HOST), "cpu_flags": "avx avx2"}) == HOST
    with pytest.raises(KeyError):
        traits_from({"cpu_vendor": "x"})
    with pytest.raises(TypeError):
        traits_from({**asdict(HOST), "cpu_flags": 7})


specs = st.builds(
    JobSpec,
    name=st.text(max_size=10),
    image=st.text(max_size=10),
    image_digest=st.text(max_size=10),
    command=st.lists(st.text(max_size=5), max_size=3).map(tuple),
    resources=st.builds(Resources, *[st.integers(0, 2**40)] * 4, pids=st.integers(1, 4096)),
    checkpoint=st.builds(
        CheckpointPolicy, st.sampled_from(CheckpointMode), st.integers(0, 999), st.integers(0, 99), st.booleans()
    ),
    max_recoveries=st.integers(0, 99),
    env=st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=3),
    on_failure=st.sampled_from(OnFailure),
)


@given(specs)
def test_a_spec_survives_json_and_keeps_its_hash(spec: JobSpec) -> None:
    again = jobspec.from_dict(asdict(spec))
    assert again == spec
    assert jobspec.spec_hash(again) == jobspec.spec_hash(spec)


def test_the_order_of_the_environment_does_not_matter_but_its_content_does() -> None:
    base = JobSpec(
        "n",
        "i",
        "d",
        ("c",),
        Resources(0, 1, 1, 1),
        CheckpointPolicy(CheckpointMode.AUTO, 1, 1),
        1,
        {"a": "1", "b": "2"},
    )
    turned = replace(base, env={"b": "2", "a": "1"})
    assert jobspec.spec_hash(base) == jobspec.spec_hash(turned)
    assert jobspec.spec_hash(base) != jobspec.spec_hash(replace(base, env={"a": "1"}))


@pytest.mark.parametrize("broken", [[], {"resources": 1, "checkpoint": {}, "command": []}, {"resources": {}}])
def test_malformed_specs_are_refused(broken: object) -> None:
    with pytest.raises((KeyError, TypeError, ValueError)):
        jobspec.from_dict(broken)  # type: ignore[arg-type]
