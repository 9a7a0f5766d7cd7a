"""What kinds of host the bench knows: which Debian, kernel and Docker each is made of."""

from collections.abc import Mapping
from dataclasses import dataclass, field

DAEMON = "etc/docker/daemon.json"
OLDEST_29 = "1.44"
"""What Docker 29 refuses anything older than; 28.5 does the same where it is told to."""

BASE = (
    "apparmor",
    "ca-certificates",
    "curl",
    "dbus",
    "docker.io",
    "iproute2",
    "iptables",
    "jq",
    "kmod",
    "netcat-openbsd",
    "nftables",
    "openssh-server",
    "procps",
    "psmisc",
    "python3",
    "python3-pip",
    "python3-venv",
    "strace",
    "systemd-sysv",
    "tar",
    "util-linux",
    "xz-utils",
)
"""Packages of every host. The agent itself is not among them: guests install it as the documentation says."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of host. ``extra`` names suites beside ``suite``, of which only the packages in ``pinned`` are taken;
    ``files`` are what its owner had configured before (path → text).
    """

    name: str
    suite: str
    kernel: str = "linux-image-amd64"
    extra: tuple[str, ...] = ()
    pinned: tuple[str, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)

    @property
    def packages(self) -> tuple[str, ...]:
        return (*BASE, self.kernel)


KINDS = {
    kind.name: kind
    for kind in (
        Kind("debian12-6.1", "bookworm"),
        Kind(
            "debian12-6.12",
            "bookworm",
            extra=("bookworm-backports", "trixie"),
            pinned=("linux-image-*:bookworm-backports", "docker.io:trixie", "containerd:trixie"),
            files={DAEMON: '{"exec-opts": ["native.cgroupdriver=cgroupfs"]}\n'},
        ),
        Kind("debian13", "trixie", files={DAEMON: '{"features": {"containerd-snapshotter": true}}\n'}),
        Kind(
            "sid",
            "sid",
            files={
                "etc/systemd/system/docker.service.d/29.conf": (
                    f'[Service]\nEnvironment="DOCKER_MIN_API_VERSION={OLDEST_29}"\n'
                )
            },
        ),
    )
}
"""By name. Debian 12 comes with Docker 20.10 (the oldest API we speak), with 6.12 it has Docker 26.1 of Debian 13 and
its cgroupfs driver; Debian 13 has containerd's image store, sid refuses the APIs that Docker 29 refuses.
"""
