"""What this host's container tools can do: process checkpoints, or files mode alone, and why."""

import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
from docker.errors import DockerException
from requests.exceptions import RequestException

from provider_agent.runtime.checkpoint import HostTools
from provider_agent.runtime.commands import last_line, run
from provider_agent.runtime.errors import DaemonUnavailable, DaemonUnsupported

OVERLAYS = {"overlay2", "overlayfs"}  # Docker's own store, and containerd's (features.containerd-snapshotter)
OLDEST_CRIU = (4, 2)
OLDEST_KERNEL = (5, 9)  # CAP_CHECKPOINT_RESTORE and clone3 with set_tid, which CRIU restores pids with


@dataclass(frozen=True)
class RuntimeCapabilities:
    """Versions ("" where missing) and whose processes can be checkpointed here: root's with `process_mode`, and with
    `other_users` those of any other user too; `reason` is one sentence when they can't, or not for every program.
    `apparmor`: whether Docker confines containers by it.
    """

    docker: str
    runc: str
    criu: str
    cgroup: str
    apparmor: bool
    kernel: str
    storage_driver: str
    process_mode: bool
    other_users: bool
    reason: str


def capabilities(client: docker.DockerClient, tools: HostTools) -> RuntimeCapabilities:
    """Ask the daemon, runc, CRIU and the kernel for their versions; what they are worth a trial shows (trial.py).

    Without CRIU the host still offers files mode. Raises DaemonUnavailable, DaemonUnsupported.
    """
    try:
        info = client.info()
        engine = str(client.version()["Version"])
    except (DockerException, RequestException) as error:
        raise DaemonUnavailable("its socket", last_line(str(error))) from error
    if detail := unsupported(info):
        raise DaemonUnsupported("its socket", detail)
    criu = version_of(tools.criu, r"Version: (\S+)") if tools.criu else ""
    confined = {means: secured(info, means) for means in ("seccomp", "selinux")}
    reason = refusal(criu, platform.release(), str(info["Driver"]), **confined)
    return RuntimeCapabilities(
        docker=engine,
        runc=version_of(tools.runc, r"runc version (\S+)"),
        criu=criu,
        cgroup=cgroup_version(),
        apparmor=secured(info, "apparmor"),
        kernel=platform.release(),
        storage_driver=str(info["Driver"]),
        process_mode=not reason,
        other_users=not reason,
        reason=reason,
    )


def unsupported(info: Mapping[str, Any]) -> str:
    """Why no job may run on the daemon whose `docker info` this is, in any mode; "" when nothing speaks against it."""
    if secured(info, "rootless"):
        return "it runs without root, and no guard could freeze its containers: the agent needs the system's own Docker"
    if secured(info, "userns"):
        return "it remaps users, and a job's files would change their owners: take userns-remap out of daemon.json"
    return ""


def refusal(criu: str, kernel: str, storage_driver: str, *, seccomp: bool, selinux: bool) -> str:
    """Why process checkpoints are not offered with these versions, "" when nothing speaks against them."""
    if not criu:
        return "CRIU is missing: install the wheel everlease_criu; until then only files mode is offered"
    if _numbers(criu) < OLDEST_CRIU:
        return f"CRIU {criu} is older than 4.2: install the wheel everlease_criu; until then only files mode is offered"
    if _numbers(kernel) < OLDEST_KERNEL:
        return f"the kernel {kernel} is older than 5.9: only files mode is offered"
    if storage_driver not in OVERLAYS:
        return f"Docker stores layers with {storage_driver} instead of an overlay: only files mode is offered"
    if not seccomp:
        return "the Docker daemon runs without seccomp: only files mode is offered"
    if selinux:
        return "Docker confines containers by SELinux, with which no checkpoint was tried: only files mode is offered"
    return ""


def version_of(binary: Path, pattern: str) -> str:
    """The version that `binary --version` prints, "" when it can't be run."""
    try:
        found = re.search(pattern, run([str(binary), "--version"]).stdout)
    except OSError:
        return ""
    return found.group(1) if found else ""


def secured(info: Mapping[str, Any], means: str) -> bool:
    """Whether the daemon whose `docker info` this is lists this among its security options: "apparmor", "seccomp", …"""
    return any(f"{option},".startswith(f"name={means},") for option in info.get("SecurityOptions") or ())


def cgroup_version(mounts: Path = Path("/sys/fs/cgroup")) -> str:
    """ "v2" where the unified hierarchy is the root, else "v1"."""
    return "v2" if (mounts / "cgroup.controllers").exists() else "v1"


def _numbers(version: str) -> tuple[int, int]:
    major, minor = (*(int(part) for part in re.findall(r"\d+", version)[:2]), 0, 0)[:2]
    return major, minor
