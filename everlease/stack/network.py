"""Hosts on one machine: a bridge, and per node a network namespace whose only link is a veth pair to it."""

import hashlib
import ipaddress
import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

from everlease.stack.errors import StackError

POOL = ipaddress.IPv4Network("10.192.0.0/11")
PREFIX = 24
LINK = "uplink"


class NetworkFault(StackError):
    """A command of ip or iptables failed."""

    def __init__(self, argv: list[str], message: str) -> None:
        super().__init__(f"'{' '.join(argv)}' failed: {message}")


def tag_of(folder: Path) -> str:
    """Six hex digits that tell one checkout's network from another's."""
    return hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:6]


@dataclass(frozen=True, slots=True)
class HostNetwork:
    """Names and addresses of one stack. The bridge's own address is where the services listen."""

    tag: str
    subnet: ipaddress.IPv4Network

    @property
    def bridge(self) -> str:
        return f"evl{self.tag}"

    @property
    def gateway(self) -> str:
        return str(self.subnet.network_address + 1)

    def netns(self, index: int) -> str:
        """Name of node ``index``'s network namespace (from 1)."""
        return f"evl{self.tag}n{index}"

    def address(self, index: int) -> str:
        """Address of node ``index``."""
        return str(self.subnet.network_address + 10 + index)

    def create(self) -> None:
        """Make the bridge and let what is behind it reach the internet; nothing happens where it is there."""
        if not _exists(self.bridge):
            _ip("link", "add", self.bridge, "type", "bridge")
        _ip("addr", "replace", f"{self.gateway}/{PREFIX}", "dev", self.bridge)
        _ip("link", "set", self.bridge, "up")
        Path("/proc/sys/net/ipv4/ip_forward").write_text("1\n", encoding="ascii")
        for table, chain, rule in self._rules():
            if _try(["iptables", "-w", "-t", table, "-C", chain, *rule]) is not None:
                _must(["iptables", "-w", "-t", table, "-I", chain, *rule])

    def add_node(self, index: int) -> None:
        """A namespace for node ``index`` with its link up."""
        name, outside = self.netns(index), f"{self.bridge}v{index}"
        if _try(["ip", "netns", "add", name]) is not None:
            raise NetworkFault(["ip", "netns", "add", name], "it exists already: run 'everlease down' first")
        _ip("link", "add", outside, "type", "veth", "peer", "name", LINK, "netns", name)
        _ip("link", "set", outside, "master", self.bridge, "up")
        _ip("-n", name, "link", "set", "lo", "up")
        _ip("-n", name, "addr", "add", f"{self.address(index)}/{PREFIX}", "dev", LINK)
        self.connect(index)

    def connect(self, index: int) -> None:
        """Put node ``index``'s link up, with its default route (which goes with the link)."""
        _ip("-n", self.netns(index), "link", "set", LINK, "up")
        _ip("-n", self.netns(index), "route", "replace", "default", "via", self.gateway)

    def disconnect(self, index: int) -> None:
        """Cut node ``index`` off."""
        _ip("-n", self.netns(index), "link", "set", LINK, "down")

    def remove_node(self, index: int) -> None:
        """Remove the namespace and its link; nothing happens when they are gone."""
        _try(["ip", "link", "del", f"{self.bridge}v{index}"])
        _try(["ip", "netns", "del", self.netns(index)])

    def remove(self, *, keep_forwarding: bool) -> None:
        """Remove bridge and rules; forwarding goes off again where it was off and no other stack needs it."""
        for table, chain, rule in self._rules():
            while _try(["iptables", "-w", "-t", table, "-D", chain, *rule]) is None:
                pass
        _try(["ip", "link", "del", self.bridge])
        if not keep_forwarding and not any(name.startswith("evl") for name in _links()):
            Path("/proc/sys/net/ipv4/ip_forward").write_text("0\n", encoding="ascii")

    def _rules(self) -> list[tuple[str, str, list[str]]]:
        subnet, bridge = str(self.subnet), self.bridge
        return [
            ("nat", "POSTROUTING", ["-s", subnet, "!", "-d", subnet, "-j", "MASQUERADE"]),
            ("filter", "FORWARD", ["-i", bridge, "-j", "ACCEPT"]),
            (
                "filter",
                "FORWARD",
                ["-o", bridge, "-m", "conntrack", "--ctstate", "RELATED,ESTABLISHED", "-j", "ACCEPT"],
            ),
        ]


def forwarding() -> bool:
    """Whether this machine forwards IPv4 packets."""
    return Path("/proc/sys/net/ipv4/ip_forward").read_text(encoding="ascii").strip() == "1"


def free_subnet(tag: str) -> ipaddress.IPv4Network:
    """A /24 of the pool that no route or address of this machine overlaps; the search starts at a place by ``tag``."""
    taken = _taken()
    count = 2 ** (PREFIX - POOL.prefixlen)
    first = int(tag, 16) % count
    for offset in range(count):
        base = int(POOL.network_address) + (((first + offset) % count) << (32 - PREFIX))
        subnet = ipaddress.IPv4Network((base, PREFIX))
        if not any(subnet.overlaps(other) for other in taken):
            return subnet
    raise StackError(f"no free /{PREFIX} is left in {POOL}: remove a route that covers all of it")


def _taken() -> list[ipaddress.IPv4Network]:
    found = []
    for route in json.loads(_must(["ip", "-j", "-4", "route", "show", "table", "all"]) or "[]"):
        destination = str(route.get("dst", "default"))
        if destination != "default":
            found.append(ipaddress.IPv4Network(destination, strict=False))
    return found


def _links() -> list[str]:
    return [str(link["ifname"]) for link in json.loads(_must(["ip", "-j", "link", "show"]) or "[]")]


def _exists(link: str) -> bool:
    return _try(["ip", "link", "show", link]) is None


def _ip(*words: str) -> None:
    _must(["ip", *words])


def _must(argv: list[str]) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NetworkFault(argv, done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "no message")
    return done.stdout


def _try(argv: list[str]) -> str | None:
    """None on success, else the message."""
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    return done.stderr.strip() if done.returncode else None
