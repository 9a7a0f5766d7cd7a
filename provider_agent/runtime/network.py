"""A job's network: the same hostname, subnet and address on every host, the internet and nothing else within reach.

CRIU restores sockets with the addresses they had, so identity is a pure function of the job id. Subnets are /29s of
the shared address space 100.64.0.0/10 (RFC 6598), which hardly any provider uses on its own network.
"""

import hashlib
import ipaddress
from dataclasses import dataclass
from pathlib import Path

import docker
from docker.errors import APIError, NotFound

from provider_agent.runtime.commands import last_line, run
from provider_agent.runtime.errors import ContainerFault, FirewallFault, SubnetTaken

POOL = ipaddress.IPv4Network("100.64.0.0/10")
PREFIX = 29
BRIDGES = "el-"
LABEL = "io.everlease.job"
# Everything that is not the public internet (IANA special-purpose address registry).
PRIVATE = (
    "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
    "192.168.0.0/16", "198.18.0.0/15", "224.0.0.0/4", "240.0.0.0/4",
)  # fmt: skip
IN, OUT, HOST = "EVERLEASE-IN", "EVERLEASE-OUT", "EVERLEASE-HOST"


@dataclass(frozen=True)
class NetworkIdentity:
    """What a job sees of its network, on whichever host."""

    hostname: str
    subnet: str
    gateway: str
    address: str
    bridge: str
    name: str


def identity(job_id: str) -> NetworkIdentity:
    """The network identity of a job. Two jobs share a subnet by chance once in 2**19 pairs; SubnetTaken then tells."""
    digest = hashlib.sha256(f"everlease network {job_id.lower()}".encode()).digest()
    # Index 0 is left out: some routers use the pool's first addresses for themselves.
    index = 1 + int.from_bytes(digest[:8], "big") % (2 ** (PREFIX - POOL.prefixlen) - 1)
    subnet = ipaddress.IPv4Network((int(POOL.network_address) + (index << (32 - PREFIX)), PREFIX))
    tag = digest.hex()[:12]
    gateway, address = (str(subnet.network_address + offset) for offset in (1, 2))
    return NetworkIdentity(f"job-{tag}", str(subnet), gateway, address, f"{BRIDGES}{tag}", f"everlease-{tag}")


def create_network(client: docker.DockerClient, job_id: str) -> NetworkIdentity:
    """Make the job's bridge network unless it is there. Raises SubnetTaken, ContainerFault."""
    wanted = identity(job_id)
    try:
        client.networks.get(wanted.name)
    except NotFound:
        pool = docker.types.IPAMPool(subnet=wanted.subnet, gateway=wanted.gateway)
        try:
            client.networks.create(
                wanted.name,
                driver="bridge",
                ipam=docker.types.IPAMConfig(pool_configs=[pool]),
                options={
                    "com.docker.network.bridge.name": wanted.bridge,
                    "com.docker.network.bridge.enable_icc": "false",
                },
                labels={LABEL: job_id},
                enable_ipv6=False,
            )
        except APIError as error:
            detail = str(error.explanation)
            if "overlap" in detail or "conflicts" in detail:
                raise SubnetTaken(wanted.subnet, detail) from error
            raise ContainerFault("make the network of", job_id, detail, retryable=True) from error
    return wanted


def remove_network(client: docker.DockerClient, job_id: str) -> None:
    """Remove the job's network; nothing happens when it is gone. Raises ContainerFault while a container uses it."""
    try:
        client.networks.get(identity(job_id).name).remove()
    except NotFound:
        return
    except APIError as error:
        raise ContainerFault("remove the network of", job_id, str(error.explanation), retryable=True) from error


def jobs_with_network(client: docker.DockerClient) -> set[str]:
    """The jobs that have a network here, with a container or without."""
    return {str(listed["Labels"][LABEL]) for listed in client.api.networks(filters={"label": LABEL})}


def rules() -> dict[str, list[list[str]]]:
    """The rules of each of our chains. OUT: what leaves a job; IN: what arrives at one; HOST: a job to this host
    itself.
    """
    reset = ["-p", "tcp", "-j", "REJECT", "--reject-with", "tcp-reset"]
    out = [["-m", "conntrack", "--ctstate", "RELATED,ESTABLISHED", "-j", "RETURN"]]
    out += [["-d", network, "-j", "REJECT"] for network in PRIVATE]
    # A connection restored here belongs to another host's address translation; a reset tells the program at once.
    out += [["-p", "tcp", "!", "--syn", *reset[2:]], ["-j", "RETURN"]]
    into = [["-m", "conntrack", "--ctstate", "RELATED,ESTABLISHED", "-j", "RETURN"], ["-j", "DROP"]]
    return {OUT: out, IN: into, HOST: [["-j", "REJECT"]]}


JUMPS = (("DOCKER-USER", "-i", OUT), ("DOCKER-USER", "-o", IN), ("INPUT", "-i", HOST))
DOCKERS = ["FORWARD", "-j", "DOCKER-USER"]
MADE = "EVERLEASE-MADE"
"""An empty chain that says: DOCKER-USER and the jump to it are ours, since this host's Docker leaves iptables alone."""


class Firewall:
    """The rules for all jobs of one host, in the network namespace of its Docker daemon. They match bridges by name,
    so one set does.
    """

    def __init__(self, netns: Path | None) -> None:
        self._netns = netns
        self._installed: tuple[str, ...] = ()

    def install(self) -> None:
        """Set the rules; the same again when they are there. Start it after dockerd, which makes DOCKER-USER. Raises
        FirewallFault.
        """
        if not self._has("DOCKER-USER") and not self._has("DOCKER"):
            self._must(["iptables", "-w", "-N", MADE], tolerate="exists")
        self._must(["iptables", "-w", "-N", "DOCKER-USER"], tolerate="exists")
        if self._try(["iptables", "-w", "-C", *DOCKERS]) is not None:
            self._must(["iptables", "-w", "-I", *DOCKERS])
        for chain, listed in rules().items():
            self._must(["iptables", "-w", "-N", chain], tolerate="exists")
            self._load(chain, listed)
        for parent, direction, chain in JUMPS:
            jump = [parent, direction, f"{BRIDGES}+", "-j", chain]
            if self._try(["iptables", "-w", "-C", *jump]) is not None:
                self._must(["iptables", "-w", "-I", *jump])
        for chain in ("INPUT", "FORWARD"):
            blocked = [chain, "-i", f"{BRIDGES}+", "-j", "DROP"]
            if self._try(["ip6tables", "-w", "-C", *blocked]) is not None:
                # A kernel without IPv6 has no such table and nothing to block.
                self._must(["ip6tables", "-w", "-I", *blocked], tolerate="initialize")
        self._installed = self._listed()

    def mend(self) -> bool:
        """Set the rules again where a reload of the host's firewall took or changed any; whether that was so. Raises
        FirewallFault.
        """
        if self._listed() == self._installed:
            return False
        self.install()
        return True

    def _listed(self) -> tuple[str, ...]:
        """Our rules as the kernel has them, in order, and Docker's jump to those of forwarding."""
        listed = []
        for command in ("iptables", "ip6tables"):
            done = run([command, "-w", "-S"], netns=self._netns)
            if done.returncode and command == "iptables":
                raise FirewallFault("iptables -w -S", last_line(done.stderr))
            lines = (line for line in done.stdout.splitlines() if not line.startswith("-N"))
            ours = (f"-A {' '.join(DOCKERS)}", "EVERLEASE-", f" {BRIDGES}+ ")
            listed += [f"{command} {line}" for line in lines if any(word in line for word in ours)]
        # Chains come in any order, which sorted() keeps within each; Docker sets its jump anew and may meet ours.
        return tuple(sorted(dict.fromkeys(listed), key=lambda line: line.split()[:3]))

    def remove(self) -> None:
        """Take the rules away again; nothing happens when they are gone."""
        for parent, direction, chain in JUMPS:
            self._try(["iptables", "-w", "-D", parent, direction, f"{BRIDGES}+", "-j", chain])
        for chain in (OUT, IN, HOST):
            self._try(["iptables", "-w", "-F", chain])
            self._try(["iptables", "-w", "-X", chain])
        for chain in ("INPUT", "FORWARD"):
            self._try(["ip6tables", "-w", "-D", chain, "-i", f"{BRIDGES}+", "-j", "DROP"])
        if self._has(MADE):
            # Unless Docker took it over meanwhile, or somebody has rules of their own in it.
            if not self._has("DOCKER") and not self._has("DOCKER-USER", rules=True):
                self._try(["iptables", "-w", "-D", *DOCKERS])
                self._try(["iptables", "-w", "-X", "DOCKER-USER"])
            self._try(["iptables", "-w", "-X", MADE])

    def _has(self, chain: str, *, rules: bool = False) -> bool:
        """Whether there is such a chain, with ``rules`` one with rules in it."""
        done = run(["iptables", "-w", "-S", chain], netns=self._netns)
        return done.returncode == 0 and (not rules or f"-A {chain} " in done.stdout)

    def _load(self, chain: str, listed: list[list[str]]) -> None:
        """Fill one chain in one transaction, so that there is no moment without rules."""
        text = "\n".join(["*filter", f"-F {chain}", *(" ".join(["-A", chain, *rule]) for rule in listed), "COMMIT", ""])
        argv = ["iptables-restore", "-w", "--noflush"]
        done = run(argv, netns=self._netns, text=text)
        if done.returncode:
            raise FirewallFault(" ".join(argv), last_line(done.stderr))

    def _try(self, argv: list[str]) -> str | None:
        """None on success, else the message."""
        done = run(argv, netns=self._netns)
        return last_line(done.stderr) if done.returncode else None

    def _must(self, argv: list[str], *, tolerate: str | None = None) -> None:
        message = self._try(argv)
        if message is not None and not (tolerate and tolerate in message):
            raise FirewallFault(" ".join(argv), message)
