"""The units say what keeps jobs alive at a stop."""

import configparser
import shutil
import subprocess
from pathlib import Path

import pytest

from provider_agent.control import DEPARTED
from provider_agent.installation import systemd, units
from provider_agent.installation.units import AgentUnit

UNIT = AgentUnit(Path("/opt/everlease/bin/python"), Path("/var/lib/everlease"), Path("/etc/everlease/agent.env"), 120)


def _read(text: str) -> configparser.ConfigParser:
    parsed = configparser.ConfigParser(interpolation=None, strict=False)
    parsed.optionxform = str  # type: ignore[assignment,method-assign]
    parsed.read_string(text)
    return parsed


def test_the_agent_stops_before_docker_and_the_network_and_nothing_else_of_its_cgroup_is_killed() -> None:
    unit = _read(units.agent_service(UNIT))

    assert {"docker.service", "network.target", "network-online.target"} <= set(unit["Unit"]["After"].split())
    assert "Requires" not in unit["Unit"]
    assert unit["Service"]["KillMode"] == "process"
    assert unit["Service"]["Slice"] == "everlease-agent.slice"
    assert (unit["Service"]["Restart"], unit["Unit"]["StartLimitIntervalSec"]) == ("always", "0")
    assert unit["Service"]["RestartPreventExitStatus"] == unit["Service"]["SuccessExitStatus"] == str(DEPARTED)
    words = "-m provider_agent.installation.stop /var/lib/everlease 120 everlease-agent.service"
    assert unit["Service"]["ExecStop"] == f"-/opt/everlease/bin/python {words}"
    assert int(unit["Service"]["TimeoutStopSec"]) > 120


def test_no_slice_is_stopped_at_the_beginning_of_a_shutdown_and_jobs_weigh_least() -> None:
    found = {name: _read(text) for name, text in units.slices().items()}

    assert all(text["Unit"]["DefaultDependencies"] == "no" for text in found.values())
    weight = {name: int(text["Slice"].get("CPUWeight", "100")) for name, text in found.items()}
    assert weight["everlease-guards.slice"] > weight["everlease-agent.slice"] > 10 * weight["everlease-jobs.slice"]


def test_the_oom_daemon_spares_agent_and_guards_where_it_looks() -> None:
    """By the services: no cgroup of a slice holds a process, so systemd-oomd never asks for its preference."""
    services = [units.agent_service(UNIT), *units.guards().values()]

    assert all(_read(text)["Service"]["ManagedOOMPreference"] == "omit" for text in services)
    assert not any("ManagedOOM" in text for text in units.slices().values())


def test_odd_paths_are_quoted_for_systemd() -> None:
    text = units.agent_service(AgentUnit(Path("/opt/a b/python"), Path("/srv/50%$x"), Path("/e"), 5))

    assert '"/opt/a b/python" -m provider_agent' in text
    assert '.stop "/srv/50%%$$x" 5 ' in text


def test_the_environment_file_reads_back_and_takes_no_second_line() -> None:
    settings = {"A": 'with "quotes" and \\', "B": '["https://x"]', "C": "$HOME `id`"}

    assert units.read_environment(units.environment_file(settings)) == settings
    with pytest.raises(ValueError, match="line break"):
        units.environment_file({"A": "one\nLD_PRELOAD=two"})


@pytest.mark.parametrize(
    ("listed", "kind"),
    [
        ("123 everlease-agent.service restart running\n", "restart"),
        (" 9 docker.service stop waiting\n10 everlease-agent.service stop running\n", "stop"),
        ("No jobs running.\n", None),
        ("", None),
    ],
)
def test_a_restart_is_told_from_a_stop_by_the_units_job(listed: str, kind: str | None) -> None:
    assert systemd.job_type(listed, units.AGENT_UNIT) == kind


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd's own check of units isn't installed")
def test_systemd_reads_every_line(tmp_path: Path) -> None:
    for name, text in (units.slices() | units.guards()).items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    unit = tmp_path / units.AGENT_UNIT
    unit.write_text(units.agent_service(AgentUnit(Path("/bin/true"), Path("/var/lib"), Path("/dev/null"), 5)))
    done = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False)
    assert "Unknown" not in done.stderr
