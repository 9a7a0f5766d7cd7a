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
