"""job.yaml: what is accepted, and what each mistake is told."""

from dataclasses import asdict
from pathlib import Path

import pytest

from everlease.cli.job import paid_for
from everlease.domain.jobspec import canonical, spec_hash
from everlease.wire.jobfile import InvalidJobFile, load_job_file, parse_duration, parse_size
from everlease.wire.spec import SpecModel

GOOD = """
name: train-mlp
image: everlease/trainer:local
command: [python, train.py, --steps, "2000"]
resources: {gpus: 0, cpus: 0.5, memory: 2GiB, disk: 500MB}
max_price_per_hour: 0.50
deposit: 2.00
checkpoint: {mode: auto, max_lost_work: 300s, min_interval: 10s}
recovery: {max_recoveries: 10}
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "job.yaml"
    path.write_text(text)
    return path


def test_the_example_of_the_design_is_read(tmp_path: Path) -> None:
    job = load_job_file(written(tmp_path, GOOD))
    spec = job.spec("sha256:" + "ab" * 32, "0")
    assert (job.max_price_per_hour, job.deposit) == (500_000, 2_000_000)
    assert (spec.resources.cpu_millis, spec.resources.memory_bytes, spec.resources.disk_bytes) == (
        500,
        2 << 30,
        500_000_000,
    )
    assert (spec.checkpoint.max_lost_work_s, spec.checkpoint.min_interval_s) == (300, 10)


def test_what_becomes_of_a_failing_job_is_part_of_what_the_tenant_signs(tmp_path: Path) -> None:
    specs = []
    for recovery in ("{max_recoveries: 10}", "{max_recoveries: 10, on_failure: park}"):
        job = load_job_file(written(tmp_path, GOOD.replace("{max_recoveries: 10}", recovery)))
        specs.append(job.spec("sha256:" + "ab" * 32, "0").to_domain())
    assert [spec.on_failure.value for spec in specs] == ["fail", "park"]
    assert spec_hash(specs[0]) != spec_hash(specs[1])


@pytest.mark.parametrize(
    ("before", "after", "field"),
    [
        ("recovery: {max_recoveries: 10}", "recovery: {on_failure: give_up}", "recovery.on_failure"),
        ("name: train-mlp", "name: Train_MLP", "name"),
        ("memory: 2GiB", "memory: lots", "resources.memory"),
        ("cpus: 0.5", "cpus: many", "resources.cpus"),
        ("cpus: 0.5", "cores: 2", "resources.cores"),
        ("max_price_per_hour: 0.50", "max_price_per_hour: 0.0000001", "max_price_per_hour"),
        ("max_price_per_hour: 0.50", "max_price_per_hour: -1", "max_price_per_hour"),
        ("deposit: 2.00", "", "deposit"),
        ("max_lost_work: 300s", "max_lost_work: 300 parsecs", "checkpoint.max_lost_work"),
        ("mode: auto", "mode: magic", "checkpoint.mode"),
        ("image: everlease/trainer:local", "image: ''", "image"),
        ("memory: 2GiB", "memory: 1KiB", "memory"),
    ],
)
def test_a_bad_field_is_named(tmp_path: Path, before: str, after: str, field: str) -> None:
    with pytest.raises(InvalidJobFile) as refused:
        load_job_file(written(tmp_path, GOOD.replace(before, after)))
    assert refused.value.field.endswith(field)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("after", "says"),
    [
        ("min_interval: 600s", "min_interval (600 s) must be shorter than max_lost_work (300 s)"),
        ("min_interval: 10s, fall_back_to_files: true, mode: process", "contradicts"),
    ],
)
def test_fields_that_contradict_each_other_are_told(tmp_path: Path, after: str, says: str) -> None:
    text = GOOD.replace("mode: auto, ", "").replace("min_interval: 10s", after)
    with pytest.raises(InvalidJobFile, match=says.replace("(", r"\(").replace(")", r"\)")):
        load_job_file(written(tmp_path, text))


@pytest.mark.parametrize(
    ("line", "as_served"),
    [
        ("min_interval: 10s", False),
        ("min_interval: 10s, pay_unsaved: true", True),
        ("min_interval: 10s, pay_unsaved: false", False),
        ("min_interval: 10s, mode: none", True),
    ],
)
def test_lost_work_is_paid_only_where_the_order_says_so(tmp_path: Path, line: str, as_served: bool) -> None:
    """The term is in what the tenant signs: nodes read it before they bid."""
    text = GOOD.replace("mode: auto, ", "").replace("min_interval: 10s", line)
    spec = load_job_file(written(tmp_path, text)).spec("sha256:" + "0" * 64, "0").to_domain()
    assert spec.checkpoint.pays_as_served is as_served
    assert f'"pay_unsaved":{str("true" in line).lower()}' in canonical(spec).decode()
    told = paid_for(SpecModel.model_validate(asdict(spec)))
    assert told.startswith("every second served" if as_served else "work that is saved")


@pytest.mark.parametrize(("text", "says"), [("a: [", "not YAML"), ("- a\n- b", "not a mapping"), ("", "not a mapping")])
def test_a_file_that_is_no_mapping_is_told(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(InvalidJobFile, match=says):
        load_job_file(written(tmp_path, text))


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(InvalidJobFile, match="no such file"):
        load_job_file(tmp_path / "nothing.yaml")


@pytest.mark.parametrize(
    ("text", "size"), [("2GiB", 2 << 30), ("1.5KiB", 1536), ("10MB", 10_000_000), (4096, 4096), ("1G", 10**9)]
)
def test_sizes(text: object, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(("text", "seconds"), [("300s", 300), ("5m", 300), ("1.5h", 5400), (90, 90), ("2d", 172_800)])
def test_durations(text: object, seconds: int) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "GiB", "-1s", "1.0001s", "True"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a"):
        parse_duration(text)


@pytest.mark.parametrize(("named", "user"), [("", "1000"), ("user: nobody\n", "nobody")])
def test_an_order_names_its_user_the_images_where_the_file_names_none(tmp_path: Path, named: str, user: str) -> None:
    job = load_job_file(written(tmp_path, GOOD + named))
    assert job.spec("sha256:" + "0" * 64, "1000").user == user
