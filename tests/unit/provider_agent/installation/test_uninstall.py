"""A host that is taken back is as it was: files, units, what Docker holds of ours, the firewall."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import docker
import pytest
from docker.errors import APIError, NotFound
from requests import Response

from everlease.wire.commands import Prepare
from provider_agent.installation import host, leftovers, units
from provider_agent.installation.errors import HostRefused
from provider_agent.installation.record import Record
from provider_agent.journal import Journal
from provider_agent.records import JobRecord
from provider_agent.runtime import network
from provider_agent.runtime.container import LABEL_FENCE, LABEL_JOB, LABEL_MODE

JOB, OTHER = "0x" + "ab" * 32, "0x" + "cd" * 32
OURS, USED, TRIAL, THEIRS = "everlease/image:1", "everlease/image:2", "everlease/trial:latest", "debian:13"


class Api:
    """The daemon's containers and networks, each by its job, and the names of its images; somebody uses one of them."""

    def __init__(self) -> None:
        self.jobs, self.nets = [JOB], [JOB, OTHER]
        self.tags = [OURS, USED, TRIAL, THEIRS]

    def containers(self, *, filters: dict[str, str], **_: object) -> list[dict[str, Any]]:
        wanted = filters["label"].partition("=")[2]
        return [{"Id": job.removeprefix("0x")} for job in self.jobs if wanted in ("", job)]

    def inspect_container(self, container: str) -> dict[str, Any]:
        labels = {LABEL_JOB: f"0x{container}", LABEL_FENCE: "1", LABEL_MODE: "files"}
        return {"Id": container, "Config": {"Labels": labels}, "State": {"Status": "running", "Pid": 0, "ExitCode": 0}}

    def remove_container(self, container: str, **_: object) -> None:
        self.jobs.remove(f"0x{container}")

    def networks(self, *, filters: dict[str, str]) -> list[dict[str, Any]]:
        return [{"Labels": {filters["label"]: job}} for job in self.nets]

    def images(self, repository: str) -> list[dict[str, Any]]:
        return [{"RepoTags": [tag for tag in self.tags if tag.startswith(f"{repository}:")]}, {"RepoTags": None}]

    def remove_image(self, name: str) -> None:
        if name == USED:
            answer = Response()
            answer.status_code = 409
            raise APIError("conflict: a container uses it", answer)
        self.tags.remove(name)


class Docker:
    """Docker's client, as far as an uninstallation asks."""

    def __init__(self) -> None:
        self.api, self.networks = Api(), self

    def get(self, name: str) -> SimpleNamespace:
        """The network of this name."""
        found = [job for job in self.api.nets if network.identity(job).name == name]
        if not found:
            raise NotFound(name)
        return SimpleNamespace(remove=lambda: self.api.nets.remove(found[0]))

    def close(self) -> None:
        return


class Machine:
    """A host under a systemd that does what it is told, with one file of ours and Docker's daemon.json."""

    def __init__(self, root: Path) -> None:
        self.etc, self.data, self.config = root / "etc", root / "data", root / "daemon.json"
        self.unit = root / "units" / units.AGENT_UNIT
        self.told, self.firewall, self.docker = list[tuple[str, ...]](), list[str](), Docker()
        self.config.write_text('{"log-driver": "journald"}')
        record = Record.load(self.etc)
        record.write(self.unit, "unit", 0o644)
        host.write_runtime(record, self.config, self.data / "everlease-runc", lambda _: None)
        (self.data / "runtime").mkdir(parents=True)
        (self.data / "runtime" / "images.json").write_text("{}")

    def note(self, *, heard: bool) -> None:
        journal = Journal(self.data / "journal.db")
        prepare = Prepare(job_id=JOB, fence=1, step="prepare/1", spec={}, store_token="t")
        held = JobRecord(job_id=JOB, fence=1, phase="held", prepare=prepare, leaving=True, goodbye=heard)
        journal.put_job(held)
        journal.close()

    def uninstall(self, **options: bool) -> list[str]:
        said = list[str]()
        host.uninstall(self.data, Path("/run/docker.sock"), said.append, **options)
        return said

    def tell(self, *words: str) -> bool:
        self.told.append(words)
        return True


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    found = Machine(tmp_path)
    monkeypatch.setattr(host, "ETC", found.etc)
    monkeypatch.setattr(host.systemd, "require", lambda: None)
    monkeypatch.setattr(host.systemd, "tried", found.tell)
    monkeypatch.setattr(host.systemd, "systemctl", found.tell)
    monkeypatch.setattr(leftovers, "connect", lambda _: cast(docker.DockerClient, found.docker))
    rules = SimpleNamespace(remove=lambda: found.firewall.append("removed"))
    monkeypatch.setattr(network, "Firewall", lambda _: rules)
    return found


@pytest.mark.parametrize("purge", [False, True])
def test_everything_of_ours_goes(machine: Machine, purge: bool) -> None:
    machine.note(heard=True)

    said = machine.uninstall(purge=purge)

    assert (machine.docker.api.jobs, machine.docker.api.nets) == ([], [])
    assert machine.docker.api.tags == [USED, THEIRS]
    assert any(USED in line for line in said)
    assert machine.firewall == ["removed"]
    assert json.loads(machine.config.read_text()) == {"log-driver": "journald"}
    assert not machine.unit.exists()
    assert not machine.etc.exists()
    assert ("disable", "--quiet", "--now", units.AGENT_UNIT) in machine.told
    assert machine.data.exists() is not purge
    assert not (machine.data / "runtime" / "images.json").exists()
    machine.uninstall()


def test_while_a_goodbye_was_not_heard_everything_stays_until_it_is_forced(machine: Machine) -> None:
    machine.note(heard=False)
    with pytest.raises(HostRefused, match=r"did not leave in order .*\(1\)"):
        machine.uninstall()
    assert (machine.docker.api.jobs, machine.docker.api.nets) == ([JOB], [JOB, OTHER])
    assert machine.docker.api.tags == [OURS, USED, TRIAL, THEIRS]
    assert machine.unit.exists()
    assert machine.firewall == []

    machine.uninstall(force=True)
    assert (machine.docker.api.jobs, machine.docker.api.nets) == ([], [])


def test_without_docker_what_stays_in_it_is_told(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    for name in ("require", "tried", "systemctl"):
        monkeypatch.setattr(host.systemd, name, machine.tell)
    monkeypatch.setattr(host, "ETC", machine.etc)
    monkeypatch.setattr(network, "Firewall", lambda _: SimpleNamespace(remove=lambda: None))
    said = list[str]()
    host.uninstall(machine.data, machine.data / "none.sock", said.append, force=True)
    assert any("stay in it" in line for line in said)
    assert not machine.unit.exists()
