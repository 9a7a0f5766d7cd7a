"""A second installation: nothing of a live agent is forgotten, and what changed is really taken up."""

import json
import shlex
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from everlease.wire.commands import Prepare
from provider_agent.installation import host, stop
from provider_agent.installation.errors import HostRefused
from provider_agent.installation.record import Record
from provider_agent.journal import Journal
from provider_agent.records import JobRecord
from provider_agent.runtime.errors import DaemonUnavailable, RuntimeNotRegistered

JOB = "0x" + "ab" * 32


class Machine:
    """What systemd was told, and whether Docker takes the runtime."""

    def __init__(self) -> None:
        self.told: list[tuple[str, ...]] = []
        self.docker_works = self.docker_answers = True

    def reach(self, socket: Path) -> SimpleNamespace:
        if not self.docker_answers:
            raise DaemonUnavailable(str(socket), "no such file")
        return SimpleNamespace(close=lambda: None)

    def register(self, *_: object) -> None:
        if not self.docker_works:
            raise RuntimeNotRegistered("register", "everlease")


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    found = Machine()
    monkeypatch.setattr(host, "ETC", tmp_path / "etc")
    monkeypatch.setattr(host.units, "UNITS", tmp_path / "units")
    monkeypatch.setattr(host, "check_tools", lambda: Path("/usr/sbin/runc"))
    monkeypatch.setattr(host.oci, "install_wrapper", lambda state, **_: state / "everlease-runc")
    monkeypatch.setattr(host, "reach", found.reach)
    monkeypatch.setattr(host, "register_runtime", found.register)
    monkeypatch.setattr(host.systemd, "require", lambda: None)
    monkeypatch.setattr(host.systemd, "shown", lambda *_: "active")
    monkeypatch.setattr(host.systemd, "systemctl", lambda *words: found.told.append(words))
    return found


def plan(data_dir: Path, node: str = "aa", **settings: str) -> host.HostPlan:
    settings = {"PROVIDER": f"0x{'ab' * 20}", "GATEWAY_URL": "ws://m/v1/node", "STORE_URL": "http://s", **settings}
    keystore = json.dumps({"address": node}).encode()
    return host.HostPlan(data_dir, Path("/run/docker.sock"), keystore, "secret", b"{}", settings, 90, None)


def install(wanted: host.HostPlan) -> None:
    host.install(wanted, lambda _: None)


def verbs(machine: Machine) -> list[str]:
    return [words[0] for words in machine.told if words[-1] == host.units.AGENT_UNIT and words[0] != "enable"]


def test_an_agent_that_runs_is_restarted_only_for_what_changed(tmp_path: Path, machine: Machine) -> None:
    install(plan(tmp_path / "data"))
    install(plan(tmp_path / "data"))
    install(plan(tmp_path / "data", BASE_RATE="7"))
    assert verbs(machine) == ["restart", "start", "restart"]


def test_a_docker_that_does_not_answer_is_told_of_before_anything_is_written(tmp_path: Path, machine: Machine) -> None:
    machine.docker_answers = False
    with pytest.raises(DaemonUnavailable):
        install(plan(tmp_path / "data"))
    assert machine.told == []
    assert not (tmp_path / "etc").exists()


@pytest.mark.parametrize(
    ("name", "value"), [("PROVIDER", "0xabc"), ("MAX_JOBS", "two"), ("LOG_LEVEL", "verbose"), ("RPC_URLS", "[")]
)
def test_settings_that_no_agent_could_start_with_are_refused_before_anything_is_written(
    tmp_path: Path, machine: Machine, name: str, value: str
) -> None:
    """systemd would start it again for ever, and one that runs with jobs would not come back."""
    install(plan(tmp_path / "data"))
    before, machine.told[:] = (tmp_path / "etc" / "agent.env").read_text(), []
    with pytest.raises(HostRefused, match=f"would not start: .*{name}|would not start: .*{name.lower()}"):
        install(plan(tmp_path / "data", **{name: value}))
    assert machine.told == []
    assert (tmp_path / "etc" / "agent.env").read_text() == before


def test_a_repeated_installation_that_restarts_the_agent_announces_it(
    tmp_path: Path, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """systemd runs what the unit says, while the unit's job is a restart."""
    announced: list[Path] = []

    def systemctl(*words: str) -> None:
        if words == ("restart", host.units.AGENT_UNIT):
            unit = (tmp_path / "units" / host.units.AGENT_UNIT).read_text()
            (line,) = [line for line in unit.splitlines() if line.startswith("ExecStop=")]
            assert stop.main(shlex.split(line)[3:]) == 0

    install(plan(tmp_path / "data"))
    monkeypatch.setattr(host.systemd, "systemctl", systemctl)
    monkeypatch.setattr(host.systemd, "restarting", lambda unit: unit == host.units.AGENT_UNIT)
    monkeypatch.setattr(stop, "announce_restart", lambda data_dir: announced.append(data_dir) or "")
    install(plan(tmp_path / "data"))
    assert announced == []
    install(plan(tmp_path / "data", BASE_RATE="7"))
    assert announced == [tmp_path / "data"]


def test_what_an_installation_that_was_broken_off_wrote_is_taken_up_by_the_next(
    tmp_path: Path, machine: Machine
) -> None:
    install(plan(tmp_path / "data"))
    machine.told.clear()
    machine.docker_works = False
    with pytest.raises(RuntimeNotRegistered):
        install(plan(tmp_path / "data", BASE_RATE="7"))
    machine.docker_works = True
    install(plan(tmp_path / "data", BASE_RATE="7"))
    assert verbs(machine) == ["restart"]


@pytest.mark.parametrize("other", [{"folder": "elsewhere"}, {"node": "bb"}])
def test_jobs_of_the_installed_agent_are_not_forgotten(tmp_path: Path, machine: Machine, other: dict[str, Any]) -> None:
    install(plan(tmp_path / "data"))
    journal = Journal(tmp_path / "data" / "journal.db")
    prepare = Prepare(job_id=JOB, fence=1, step="prepare/1", spec={}, store_token="t")
    record = JobRecord(job_id=JOB, fence=1, phase="running", prepare=prepare)
    journal.put_job(record)
    wanted = plan(tmp_path / other.get("folder", "data"), other.get("node", "aa"))

    with pytest.raises(HostRefused, match="1 jobs"):
        install(wanted)

    journal.put_job(record.model_copy(update={"phase": "held", "leaving": True, "goodbye": True}))
    journal.close()
    install(wanted)


def test_nothing_of_the_mark_is_left(tmp_path: Path, machine: Machine) -> None:
    install(plan(tmp_path / "data"))
    assert not (tmp_path / "data" / host.UNFINISHED).exists()
    assert Record.load(tmp_path / "etc").files
