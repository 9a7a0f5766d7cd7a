"""Containers of jobs through Docker's API: limits and security come from the spec alone, names and labels say whose
they are.
"""

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import docker
from docker.errors import APIError, DockerException, ImageNotFound, NotFound
from requests.exceptions import RequestException

from provider_agent import cgroups, guards
from provider_agent.runtime import network, oci
from provider_agent.runtime.capability import cgroup_version
from provider_agent.runtime.commands import tree_bytes
from provider_agent.runtime.container_log import LOG_OPTIONS, ContainerLog, LogLine, close_stream
from provider_agent.runtime.errors import ContainerFault, ImageMissing
from provider_agent.runtime.local_images import LocalImages
from provider_agent.runtime.oci import Capture
from provider_agent.runtime.parked import end_session

LABEL_JOB, LABEL_FENCE, LABEL_MODE = network.LABEL, "io.everlease.fence", "io.everlease.mode"
CHECKPOINT_DIR = "/checkpoint"
KEPT_CAPABILITIES = ("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "NET_BIND_SERVICE", "SETGID", "SETUID")
DNS = ("9.9.9.9", "1.1.1.1")
# A daemon that dies or hangs in a call shows as an error of the HTTP client below Docker's.
FAILURES = (DockerException, RequestException)


@dataclass(frozen=True)
class Limits:
    """What a job may use. `disk_bytes` is the writable layer plus volumes, see ContainerEngine.disk_used."""

    cpus: float
    memory_bytes: int
    disk_bytes: int
    pids: int = 1024
    shm_bytes: int = 64 << 20


@dataclass(frozen=True)
class ContainerSpec:
    """A job's container as its order asks for it. `image` is its config's digest, `mode` is "process" or "files";
    `gpus` are device ids of this host.
    """

    job_id: str
    fence: int
    image: str
    limits: Limits
    command: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    workdir: str | None = None
    user: str | None = None
    gpus: tuple[str, ...] = ()
    tmpfs: Mapping[str, str] = field(default_factory=dict)
    mode: str = "process"

    @property
    def name(self) -> str:
        return f"{network.identity(self.job_id).name}-{self.fence}"

    @property
    def outer(self) -> str:
        """The name of its outer cgroup (cgroups.py): no dash, since systemd nests slices at each."""
        return f"{network.identity(self.job_id).hostname.removeprefix('job-')}x{self.fence}"


@dataclass(frozen=True)
class JobContainer:
    """A container of ours as Docker sees it. `status` is Docker's word; `exit_code` only once it has exited."""

    id: str
    job_id: str
    fence: int
    mode: str
    status: str
    pid: int
    exit_code: int | None
    oom_killed: bool


class ContainerEngine:
    """All container operations of one agent. Methods block; call them from a thread. `state` is the agent's folder."""

    def __init__(self, client: docker.DockerClient, state: Path, *, dns: tuple[str, ...] = DNS) -> None:
        self.client, self.state = client, state
        self.images = LocalImages(client, state)
        self._dns = dns

    def create(self, spec: ContainerSpec, checkpoint_dir: Path) -> JobContainer:
        """Make the job's network and container, not started; `checkpoint_dir` (of the host) appears as /checkpoint.

        A container that an earlier try left under the same job and fence and that never ran is replaced.
        Raises ImageMissing, SubnetTaken, ContainerFault.
        """
        identity = network.create_network(self.client, spec.job_id)
        checkpoint_dir.mkdir(parents=True, exist_ok=True)
        for old in self.list(job_id=spec.job_id):
            if old.fence == spec.fence and old.status == "created":
                self.remove(old.id)
        image = self.images.find(spec.image)
        if image is None:
            raise ImageMissing(spec.image, "it was never loaded here")
        api = self.client.api
        layout, outer = cgroups.layout_of(self.state), spec.outer
        cgroups.make_outer(layout, outer)
        parent = layout.parent(outer, str(self.client.info().get("CgroupDriver")))
        try:
            endpoint: Any = api.create_endpoint_config(ipv4_address=identity.address)
            joined: Any = {identity.name: endpoint}
            made = api.create_container(
                image,
                command=list(spec.command) or None,
                name=spec.name,
                hostname=identity.hostname,
                user=spec.user,
                working_dir=spec.workdir,
                environment=dict(spec.env),
                labels={LABEL_JOB: spec.job_id, LABEL_FENCE: str(spec.fence), LABEL_MODE: spec.mode},
                networking_config=api.create_networking_config(joined),
                host_config=self._host_config(spec, identity, checkpoint_dir, parent),
            )
        except ImageNotFound as error:
            raise ImageMissing(spec.image, str(error.explanation)) from error
        except APIError as error:
            raise ContainerFault("create", spec.name, str(error.explanation)) from error
        container = str(made["Id"])
        guards.prepare(
            oci.prepare(self.state, container, self._captures(container, checkpoint_dir), identity.address), outer
        )
        return self.inspect(container)

    def _host_config(
        self, spec: ContainerSpec, identity: network.NetworkIdentity, checkpoint_dir: Path, parent: str
    ) -> dict[str, Any]:
        gpus = [docker.types.DeviceRequest(device_ids=list(spec.gpus), capabilities=[["gpu"]])] if spec.gpus else None
        limits = spec.limits
        config: dict[str, Any] = self.client.api.create_host_config(
            runtime=oci.RUNTIME_NAME,
            cgroup_parent=parent,
            network_mode=identity.name,
            dns=list(self._dns),
            sysctls={"net.ipv6.conf.all.disable_ipv6": "1"},
            binds={str(checkpoint_dir.resolve()): {"bind": CHECKPOINT_DIR, "mode": "rw"}},
            tmpfs=dict(spec.tmpfs),
            cap_drop=["ALL"],
            cap_add=list(KEPT_CAPABILITIES),
            security_opt=["no-new-privileges:true"],
            privileged=False,
            ipc_mode="private",
            cgroupns="private" if cgroup_version() == "v2" else None,
            nano_cpus=int(limits.cpus * 1e9),
            mem_limit=limits.memory_bytes,
            memswap_limit=limits.memory_bytes,
            pids_limit=limits.pids,
            shm_size=limits.shm_bytes,
            restart_policy={"Name": "no"},
            log_config=docker.types.LogConfig(type="json-file", config=LOG_OPTIONS),
            device_requests=gpus,
        )
        return config

    def _captures(self, container: str, checkpoint_dir: Path) -> tuple[Capture, ...]:
        """What a checkpoint carries besides the writable layer: /checkpoint, and each volume that the image has."""
        found = [Capture("checkpoint", checkpoint_dir.resolve())]
        mounts = self._raw(container)["Mounts"]
        volumes = sorted((mount["Destination"], mount["Source"]) for mount in mounts if mount["Type"] == "volume")
        found += [Capture(f"volume-{number}", Path(source)) for number, (_, source) in enumerate(volumes)]
        return tuple(found)

    def start(self, container: str) -> None:
        """Run a created container (or restore it, when it is marked). Raises ContainerFault with Docker's own words."""
        try:
            oci.permit_start(self.state, container)
            self.client.api.start(container)
        except (*FAILURES, OSError) as error:
            raise ContainerFault("start", container[:12], _explain(error)) from error
        finally:
            oci.withdraw_start(self.state, container)

    def inspect(self, container: str) -> JobContainer:
        """The container's state now. Raises ContainerFault when it is gone or not a job's."""
        raw = self._raw(container)
        labels, state = raw["Config"].get("Labels") or {}, raw["State"]
        if LABEL_JOB not in labels:
            raise ContainerFault("inspect", container[:12], "it is not a job's container")
        exited = state["Status"] in {"exited", "dead"}
        return JobContainer(
            id=raw["Id"],
            job_id=labels[LABEL_JOB],
            fence=int(labels[LABEL_FENCE]),
            mode=labels[LABEL_MODE],
            status=state["Status"],
            pid=state["Pid"],
            exit_code=state["ExitCode"] if exited else None,
            oom_killed=bool(state.get("OOMKilled")),
        )

    def list(self, *, job_id: str | None = None) -> tuple[JobContainer, ...]:
        """Every job's container on this host, running or not: what an agent that starts again looks at first."""
        label = LABEL_JOB if job_id is None else f"{LABEL_JOB}={job_id}"
        found = []
        for listed in self.client.api.containers(all=True, filters={"label": label}):
            try:
                found.append(self.inspect(listed["Id"]))
            except ContainerFault:
                continue
        return tuple(found)

    def jobs(self) -> set[str]:
        """The jobs of which a container or a network is on this host."""
        return {container.job_id for container in self.list()} | network.jobs_with_network(self.client)

    def kill(self, container: str) -> None:
        """SIGKILL every task, frozen ones too: they die when thawed without running another instruction.

        A dump that waits in frozen tasks ends after them.
        """
        folder = oci.container_folder(self.state, container)
        guards.kill(folder)
        end_session(folder)

    def stop(self, container: str, *, grace_s: int = 10) -> None:
        """SIGTERM, then SIGKILL after the grace time; a container that is gone is fine."""
        try:
            self.client.api.stop(container, timeout=grace_s)
        except NotFound:
            return
        except FAILURES as error:
            raise ContainerFault("stop", container[:12], _explain(error), retryable=True) from error

    def remove(self, container: str) -> None:
        """Kill and remove a container, its volumes and its folder; again is fine. The job's network stays, see
        remove_job.
        """
        self.kill(container)
        try:
            self.client.api.remove_container(container, force=True, v=True)
        except NotFound:
            pass
        except FAILURES as error:
            raise ContainerFault("remove", container[:12], _explain(error), retryable=True) from error
        folder = oci.container_folder(self.state, container)
        if folder.is_dir():
            guards.forget(folder)
        oci.forget(self.state, container)

    def remove_job(self, job_id: str) -> None:
        """Remove all containers of a job and its network."""
        for container in self.list(job_id=job_id):
            self.remove(container.id)
        network.remove_network(self.client, job_id)

    def wait(self, container: str, *, timeout: float) -> int:
        """Block until the container ends; its exit code. Raises TimeoutError, ContainerFault."""
        give_up = time.monotonic() + timeout
        while time.monotonic() < give_up:
            code = self.inspect(container).exit_code
            if code is not None:
                return code
            time.sleep(0.1)
        raise TimeoutError(f"the container {container[:12]} did not end within {timeout} s")

    def log(self, container: str, *, after: str | None = None) -> ContainerLog:
        """A reader of its output since the start, or after the cursor of a piece seen before."""
        return ContainerLog(self.client.api, container, after)

    def logs(self, container: str, *, after: str | None = None) -> Iterator[LogLine]:
        """Its output until now, or what of it came after that piece. Raises ContainerFault.

        What a container wrote after its last newline comes once it has ended: Docker holds it back until then.
        """
        try:
            yield from self.log(container, after=after).read()
        except FAILURES as error:
            raise ContainerFault("read the log of", container[:12], _explain(error), retryable=True) from error

    def execute(self, container: str, command: tuple[str, ...], *, limit_bytes: int = 1 << 20) -> tuple[int, bytes]:
        """Run a command in the running container: (exit code, at most `limit_bytes` of its output). Gone after a
        move.
        """
        api = self.client.api
        try:
            started = api.exec_create(container, list(command))["Id"]
            stream: Any = api.exec_start(started, stream=True)
            output = b""
            try:
                for chunk in stream:
                    output = (output + chunk)[:limit_bytes]
            finally:
                close_stream(stream)
            return int(api.exec_inspect(started)["ExitCode"]), output
        except FAILURES as error:
            raise ContainerFault("run a command in", container[:12], _explain(error)) from error

    def disk_used(self, container: str) -> int:
        """Bytes on disk of the writable layer, /checkpoint and volumes.

        Docker enforces a quota only on xfs with pquota, so the agent compares this with Limits.disk_bytes from time
        to time.
        """
        return tree_bytes(capture.path for capture in oci.captures_of(self.state, container))

    def close(self) -> None:
        """Close the connections to Docker."""
        self.client.close()

    def config(self, container: str) -> dict[str, Any]:
        """Docker's record of the container, as JSON."""
        return self._raw(container)

    def _raw(self, container: str) -> dict[str, Any]:
        try:
            raw: dict[str, Any] = self.client.api.inspect_container(container)
        except NotFound as error:
            raise ContainerFault("find", container[:12], "there is no such container") from error
        except FAILURES as error:
            raise ContainerFault("inspect", container[:12], _explain(error), retryable=True) from error
        return raw


def _explain(error: Exception) -> str:
    explanation = getattr(error, "explanation", None)
    if isinstance(explanation, bytes):
        explanation = json.loads(explanation).get("message", "")
    return str(explanation or error)[:2000]
