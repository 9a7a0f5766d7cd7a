"""Rules that a reload of the host's own firewall takes away come back."""

import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from provider_agent.runtime import network
from provider_agent.runtime.errors import FirewallFault
from tests.integration.runtime.conftest import Fleet, ip, until

DIAL = """
import socket, sys, time
while True:
    try:
        socket.create_connection((sys.argv[1], 8000), timeout=1).close()
        print("reached", flush=True)
    except OSError:
        print("refused", flush=True)
    time.sleep(0.1)
"""
LISTEN = "import socket,time; s=socket.create_server(('0.0.0.0', 8000)); print('up', flush=True); time.sleep(1000)"


@pytest.fixture
def netns() -> Iterator[Path]:
    name = f"elf-{uuid.uuid4().hex[:6]}"
    ip("netns", "add", name)
    yield Path("/run/netns") / name
    ip("netns", "del", name)


def inside(netns: Path, *argv: str) -> str:
    return subprocess.run(["nsenter", f"--net={netns}", "--", *argv], check=True, capture_output=True, text=True).stdout


def table(netns: Path) -> list[str]:
    return sorted(inside(netns, "iptables", "-S").splitlines() + inside(netns, "ip6tables", "-S").splitlines())


@pytest.mark.parametrize(
    "losses",
    [
        ["iptables -F", "iptables -X"],
        ["iptables -F"],
        ["iptables -D INPUT -i el-+ -j EVERLEASE-HOST"],
        ["iptables -D DOCKER-USER -i el-+ -j EVERLEASE-OUT"],
        ["iptables -D FORWARD -j DOCKER-USER"],
        ["iptables -I EVERLEASE-OUT -j ACCEPT"],
        ["iptables -D EVERLEASE-OUT -d 10.0.0.0/8 -j REJECT"],
        ["ip6tables -F FORWARD"],
    ],
)
def test_what_is_lost_or_changed_is_set_again(netns: Path, losses: list[str]) -> None:
    firewall = network.Firewall(netns)
    firewall.install()
    before = table(netns)
    assert not firewall.mend()
    for loss in losses:
        inside(netns, *loss.split())
    assert table(netns) != before
    assert firewall.mend()
    assert table(netns) == before
    assert not firewall.mend()


def test_rules_of_others_are_none_of_ours(netns: Path) -> None:
    inside(netns, "iptables", "-A", "INPUT", "-p", "icmp", "-j", "ACCEPT")
    firewall = network.Firewall(netns)
    firewall.install()
    inside(netns, "iptables", "-A", "FORWARD", "-j", "ACCEPT")
    inside(netns, "iptables", "-N", "ANOTHER")
    inside(netns, "iptables", "-I", "FORWARD", "-j", "DOCKER-USER")
    assert not firewall.mend()
    assert "-A INPUT -p icmp -j ACCEPT" in table(netns)


@pytest.mark.parametrize(
    "before",
    [
        [],
        ["iptables -N DOCKER-USER", "iptables -A FORWARD -j DOCKER-USER", "iptables -N DOCKER"],
        ["iptables -N DOCKER-USER", "iptables -A FORWARD -j DOCKER-USER", "iptables -A DOCKER-USER -j RETURN"],
    ],
)
def test_what_was_not_there_before_goes_and_what_was_stays(netns: Path, before: list[str]) -> None:
    for rule in before:
        inside(netns, *rule.split())
    found = table(netns)
    for _ in range(2):
        network.Firewall(netns).install()  # as an agent that starts again does
    inside(netns, "iptables", "-D", "FORWARD", "-j", "DOCKER-USER")
    network.Firewall(netns).install()

    network.Firewall(netns).remove()

    assert table(netns) == found
    network.Firewall(netns).remove()
    assert table(netns) == found


def test_a_chain_of_ours_that_others_use_meanwhile_stays(netns: Path) -> None:
    network.Firewall(netns).install()
    inside(netns, "iptables", "-A", "DOCKER-USER", "-s", "192.0.2.1", "-j", "DROP")
    network.Firewall(netns).remove()
    theirs = ["-A DOCKER-USER -s 192.0.2.1/32 -j DROP", "-A FORWARD -j DOCKER-USER", "-N DOCKER-USER"]
    assert [line for line in table(netns) if not line.startswith("-P")] == theirs


def test_a_chain_of_ours_that_docker_took_over_stays(netns: Path) -> None:
    network.Firewall(netns).install()
    inside(netns, "iptables", "-N", "DOCKER")
    network.Firewall(netns).remove()
    left = ["-A FORWARD -j DOCKER-USER", "-N DOCKER", "-N DOCKER-USER"]
    assert [line for line in table(netns) if not line.startswith("-P")] == left


def test_a_firewall_that_does_not_answer_is_a_fault() -> None:
    with pytest.raises(FirewallFault):
        network.Firewall(Path("/run/netns/none")).mend()


def test_a_job_reaches_the_host_no_longer_than_until_the_next_look(fleet: Fleet) -> None:
    a = fleet.hosts["a"]
    assert a.docker.netns is not None
    firewall = network.Firewall(a.docker.netns)
    firewall.install()
    argv = ["nsenter", f"--net={a.docker.netns}", "--", sys.executable, "-c", LISTEN]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as listener:
        try:
            assert listener.stdout is not None
            listener.stdout.readline()
            job = a.launch(fleet.raw_spec("python", "-c", DIAL, a.address))
            until(lambda: "refused" in a.steps(job.id))
            assert "reached" not in a.steps(job.id)
            inside(a.docker.netns, "iptables", "-F", "INPUT")
            until(lambda: a.steps(job.id)[-1] == "reached")
            assert firewall.mend()
            until(lambda: a.steps(job.id)[-3:] == ["refused"] * 3)
        finally:
            listener.kill()
