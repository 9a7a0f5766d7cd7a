"""Docker daemons: one of our own in a network namespace, or the host's own, checked for our runtime."""

import json
import os
import shutil
import signal
import socket as unix
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
from docker.errors import DockerException
from requests.exceptions import RequestException

from everlease import docker_api
from provider_agent.guard import Freezer, freezer_of
from provider_agent.runtime.capability import unsupported
from provider_agent.runtime.commands import in_netns, last_line, run
from provider_agent.runtime.errors import (
    ContainerFault,
    DaemonUnavailable,
    DaemonUnsupported,
    DockerMissing,
    RuntimeNotRegistered,
)
from provider_agent.runtime.oci import RUNTIME_NAME

READY_TIMEOUT_S = 60.0
API_TIMEOUT_S = 660  # `start` answers only when a restore has ended
# Unix sockets take 107 characters; the longest one below the exec root is containerd's.
LONGEST_EXEC_ROOT = 107 - len("/containerd/containerd-debug.sock")


def connect(socket: Path) -> docker_api.Client:
    """A client of the daemon at this unix socket. Raises DaemonUnavailable, DaemonUnsupported."""
    try:
        # Docker's client leaks its socket when nobody listens, so knock first.
        with unix.socket(unix.AF_UNIX) as knock:
            knock.settimeout(5)
            knock.connect(str(socket))
    except OSError as error:
        raise DaemonUnavailable(str(socket), error.strerror or str(error)) from error
    try:
        return docker_api.connect(f"unix://{socket}", timeout=API_TIMEOUT_S)
    except docker_api.EngineUnsupported as error:
        raise DaemonUnsupported(str(socket), str(error)) from error
    except (DockerException, RequestException, OSError) as error:
        raise DaemonUnavailable(str(socket), last_line(str(error))) from error


def reach(socket: Path) -> docker_api.Client:
    """The same, of a daemon that jobs may run on."""
    client = connect(socket)
    try:
        detail = unsupported(client.info())
    except (DockerException, RequestException) as error:
        raise DaemonUnavailable(str(socket), last_line(str(error))) from error
    if detail:
        client.close()
        raise DaemonUnsupported(str(socket), detail)
    return client


def use_existing(socket: Path, wrapper: Path) -> docker_api.Client:
    """A client of the host's own daemon, after a check that it runs our wrapper as runtime `everlease`.

    Raises DockerMissing, DaemonUnavailable, DaemonUnsupported, RuntimeNotRegistered (whose text is the line for
    daemon.json and the reload).
    """
    if not socket.exists() and shutil.which("dockerd") is None:
        raise DockerMissing("dockerd")
    client = reach(socket)
    found = client.info().get("Runtimes", {}).get(RUNTIME_NAME)
    path = found.get("path") if found else None
    if path is None or Path(path).resolve() != wrapper.resolve():
        raise RuntimeNotRegistered(str(wrapper), path)
    return client


@dataclass(frozen=True)
class DaemonPaths:
    """Where a private daemon lives. `data` keeps images and layers; `run` (short!) sockets and state of the moment."""

    data: Path
    run: Path

    @property
    def exec_root(self) -> Path:
        return self.run / "exec"

    @property
    def socket(self) -> Path:
        return self.run / "docker.sock"

    @property
    def pid_file(self) -> Path:
        return self.run / "docker.pid"

    @property
    def log(self) -> Path:
        return self.run / "dockerd.log"


class HostDocker:
    """A Docker daemon of our own, with its own containerd, in the network namespace `netns` (a path; None: this
    one).
    """

    def __init__(
        self, paths: DaemonPaths, *, wrapper: Path, netns: Path | None = None, binary: str = "dockerd"
    ) -> None:
        if len(str(paths.exec_root)) > LONGEST_EXEC_ROOT:
            raise ContainerFault(
                "start", "dockerd", f"the path {paths.exec_root} is longer than {LONGEST_EXEC_ROOT} characters"
            )
        self.paths, self.netns = paths, netns
        self._wrapper, self._binary = wrapper, binary
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> docker_api.Client:
        """Start the daemon, or find the one an earlier agent left running. Raises DockerMissing, DaemonUnavailable."""
        if self.pid() is not None:
            return self._wait_ready()
        if shutil.which(self._binary) is None:
            raise DockerMissing(self._binary)
        for folder in (self.paths.data, self.paths.exec_root):
            folder.mkdir(parents=True, exist_ok=True, mode=0o711)
        self.paths.pid_file.unlink(missing_ok=True)
        self.paths.socket.unlink(missing_ok=True)
        config = self.paths.run / "daemon.json"
        config.write_text(json.dumps(self._config(), indent=2), encoding="utf-8")
        with self.paths.log.open("ab") as log:
            self._process = subprocess.Popen(
                in_netns(self.netns, [self._binary, "--config-file", str(config)]),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd="/",
            )
        return self._wait_ready()

    def stop(self, timeout: float = 60.0) -> None:
        """Stop the daemon and its containers in order, and leave nothing running or mounted. Images and layers stay."""
        pid = self.pid()
        if pid is not None:
            os.kill(pid, signal.SIGTERM)
            self._wait_gone(pid, timeout)
        self.kill()

    def kill(self) -> None:
        """SIGKILL the daemon, containerd, the shims and all containers, as a power cut would; then unmount what is
        left.
        """
        for _ in range(5):
            left = self.processes()
            for process in left:
                _kill(process)
            if not left:
                break
            psutil.wait_procs(left, timeout=5)
        if self._process is not None:
            self._process.wait()
        self._unmount()
        self.paths.pid_file.unlink(missing_ok=True)
        self.paths.socket.unlink(missing_ok=True)

    def purge(self) -> None:
        """`kill`, then delete every file of the daemon: images, layers, containers, state."""
        self.kill()
        for folder in (self.paths.data, self.paths.run):
            shutil.rmtree(folder, ignore_errors=True)

    def pid(self) -> int | None:
        """The daemon's pid when it runs, checked against its command line so that a reused pid is not taken for it."""
        for process in self._daemons():
            return int(process.pid)
        return None

    def processes(self) -> list[psutil.Process]:
        """Every process of this daemon: dockerd, containerd, shims, proxies and the containers' own."""
        roots = self._daemons()
        marker = str(self.paths.exec_root)
        for process in psutil.process_iter(["name", "cmdline"]):
            words = process.info["cmdline"] or []
            named = (process.info["name"] or "").startswith(("containerd", "docker-proxy", "runc", "exe"))
            if named and any(marker in word for word in words):
                roots.append(process)
        found: dict[int, psutil.Process] = {}
        for root in roots:
            found[root.pid] = root
            try:
                found.update((child.pid, child) for child in root.children(recursive=True))
            except psutil.NoSuchProcess:
                continue
        return list(found.values())

    def _daemons(self) -> list[psutil.Process]:
        config = str(self.paths.run / "daemon.json")
        listed = psutil.process_iter(["name", "cmdline"])
        return [
            process
            for process in listed
            if "dockerd" in (process.info["name"] or "") and config in (process.info["cmdline"] or [])
        ]

    def _config(self) -> dict[str, object]:
        return {
            "data-root": str(self.paths.data),
            "exec-root": str(self.paths.exec_root),
            "pidfile": str(self.paths.pid_file),
            "hosts": [f"unix://{self.paths.socket}"],
            "storage-driver": "overlay2",
            "bridge": "none",
            "iptables": True,
            "userland-proxy": False,
            "live-restore": False,
            "shutdown-timeout": 5,
            "runtimes": {RUNTIME_NAME: {"path": str(self._wrapper)}},
        }

    def _wait_ready(self) -> docker_api.Client:
        give_up = time.monotonic() + READY_TIMEOUT_S
        while True:
            try:
                return connect(self.paths.socket)
            except DaemonUnavailable:
                ended = self._process is not None and self._process.poll() is not None
                if ended or time.monotonic() > give_up:
                    log = (
                        self.paths.log.read_text(encoding="utf-8", errors="replace")[-4000:]
                        if self.paths.log.exists()
                        else ""
                    )
                    raise DaemonUnavailable(str(self.paths.socket), last_line(log)) from None
                time.sleep(0.1)

    def _wait_gone(self, pid: int, timeout: float) -> None:
        try:
            psutil.Process(pid).wait(timeout)
        except (psutil.NoSuchProcess, psutil.TimeoutExpired):
            return

    def _unmount(self) -> None:
        ours = (f"{self.paths.data}/", f"{self.paths.run}/")
        mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()]
        for mount in sorted((mount for mount in mounts if f"{mount}/".startswith(ours)), key=len, reverse=True):
            run(["umount", "--lazy", mount])


def _kill(process: psutil.Process) -> None:
    """SIGKILL, and thaw: a task frozen by cgroup v1 dies only once it is thawed, before it runs another instruction.

    The outer cgroup of a job's container is thawed too: end its guard first.
    """
    try:
        freezer = freezer_of(process.pid)
        process.kill()
        for path in (freezer.path, *freezer.path.parents):
            above = Freezer(path, freezer.version)
            if not above.exists():
                break
            if above.requested():
                above.thaw()
    except (psutil.NoSuchProcess, OSError):
        return
