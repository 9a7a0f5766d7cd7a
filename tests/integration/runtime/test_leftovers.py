"""A host that is taken back loses the containers that nobody needs and keeps the others until it is forced."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from everlease.wire.commands import Prepare
from provider_agent import guards
from provider_agent.installation import host, leftovers
from provider_agent.installation.errors import HostRefused
from provider_agent.journal import Journal
from provider_agent.records import JobRecord, Phase
from provider_agent.runtime import network
from tests.integration.runtime.conftest import Fleet, Host


@pytest.fixture
def data(fleet: Fleet) -> Iterator[Path]:
    """The agent's data folder of host a, whose runtime folder is called "state" here."""
    root = fleet.hosts["a"].root
    yield root
    for path in root.glob("journal.db*"):
        path.unlink()


def _remove(host: Host, data: Path, *, force: bool = False) -> None:
    leftovers.remove_jobs(host.engine, data, lambda _: None, force=force)


def _note(data: Path, job: str, *, leaving: bool) -> None:
    journal = Journal(data / "journal.db")
    prepare = Prepare(job_id=job, fence=1, step="prepare/1", spec={}, store_token="t")
    phase: Phase = "held" if leaving else "running"
    journal.put_job(JobRecord(job_id=job, fence=1, phase=phase, prepare=prepare, leaving=leaving, goodbye=leaving))
    journal.close()


def test_frozen_containers_of_jobs_that_left_and_those_of_nobody_go(fleet: Fleet, data: Path) -> None:
    a = fleet.hosts["a"]
    left, unknown = (a.launch(fleet.spec("counter")) for _ in range(2))
    _note(data, left.job_id, leaving=True)
    guards.freeze(a.folder(left.id))

    _remove(a, data)

    assert a.engine.list() == ()
    assert not a.folder(unknown.id).exists()


def test_a_job_that_was_not_left_in_order_keeps_everything_until_it_is_forced(fleet: Fleet, data: Path) -> None:
    a = fleet.hosts["a"]
    left, stays = (a.launch(fleet.spec("counter")) for _ in range(2))
    with pytest.raises(HostRefused, match=r"still on this host \(2\)"):
        _remove(a, data)  # no journal: nobody can tell
    _note(data, left.job_id, leaving=True)
    _note(data, stays.job_id, leaving=False)

    with pytest.raises(HostRefused, match=r"still on this host \(1\)"):
        _remove(a, data)

    assert {container.job_id for container in a.engine.list()} == {left.job_id, stays.job_id}
    _remove(a, data, force=True)
    assert a.engine.list() == ()


def test_an_uninstallation_leaves_nothing_of_ours_in_docker_and_the_firewall(
    host_maker: Callable[[str, int], Host], fleet: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files and units: tests/unit/provider_agent/installation."""
    e = host_maker("e", 15)
    (e.root / "runtime").symlink_to("state")
    job, prepared = e.launch(fleet.spec("counter")), fleet.spec("counter").job_id
    network.create_network(e.engine.client, prepared)
    _note(e.root, job.job_id, leaving=True)
    guards.freeze(e.folder(job.id))
    firewall = network.Firewall(e.docker.netns)
    monkeypatch.setattr(network, "Firewall", lambda _: firewall)
    monkeypatch.setattr(host, "ETC", tmp_path / "etc")
    for name in ("require", "tried", "systemctl"):
        monkeypatch.setattr(host.systemd, name, lambda *_, **__: True)

    host.uninstall(e.root, e.docker.paths.socket, lambda _: None)

    api = e.engine.client.api
    assert api.containers(all=True) == []
    assert api.networks(filters={"label": network.LABEL}) == []
    assert api.images(all=True) == []
    argv = ["nsenter", f"--net={e.docker.netns}", "--", "iptables", "-S"]
    assert "EVERLEASE" not in subprocess.check_output(argv, text=True)
