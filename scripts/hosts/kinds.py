"""What kinds of host the bench knows: which Debian, kernel and Docker each is made of."""

from dataclasses import dataclass

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
    """One kind of host. ``extra`` names suites beside ``suite``, of which only the packages in ``pinned`` are taken."""

    name: str
    suite: str
    kernel: str = "linux-image-amd64"
    extra: tuple[str, ...] = ()
    pinned: tuple[str, ...] = ()

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
        ),
        Kind("debian13", "trixie"),
        Kind("sid", "sid"),
    )
}
"""By name. Debian 12 comes with Docker 20.10 (the oldest API we speak), with 6.12 it has Docker 26.1 of Debian 13."""
