"""Bring a checkpoint back to life: a new container from the job's spec, its files put back, CRIU instead of
`create`.
"""

import shutil
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from provider_agent.runtime import archives, audit, diagnosis, oci
from provider_agent.runtime.capability import cgroup_version, secured
from provider_agent.runtime.checkpoint import read_dump
from provider_agent.runtime.container import ContainerEngine, ContainerSpec, JobContainer
from provider_agent.runtime.errors import CheckpointRefused, ContainerFault, RestoreFailed

TIMEOUT_S = 600.0
LOG_LIMIT_BYTES = 64 << 20
RESUME_ENV = "EVERLEASE_RESUME"


@dataclass(frozen=True)
class RestoreResult:
    """A container that runs again. `total_s` counts from the call of `start`."""

    container: JobContainer
    total_s: float


def prepare(engine: ContainerEngine, spec: ContainerSpec, dump: Path, checkpoint_dir: Path) -> JobContainer:
    """Create the container and put the checkpoint's files back, those of its writable layer at `start`; nothing runs
    yet, so it can go on while a fencing time runs out.

    Everything that grants rights (limits, capabilities, seccomp, mounts, devices) comes from `spec`. Called again for
    the same job and fence after a kill, it starts over. Raises CheckpointRefused, RestoreFailed, ContainerFault.
    """
    mode = read_dump(dump).mode
    if mode == "files":
        spec = resumed(spec)
    else:
        apparmor = secured(engine.client.info(), "apparmor")
        audit.check_images(dump / "criu", cgroup_version(), apparmor=apparmor)
    container = engine.create(spec, checkpoint_dir)
    try:
        upper = None
        for capture in oci.captures_of(engine.state, container.id):
            archive = dump / "files" / f"{capture.name}.tar"
            if not archive.exists():
                if mode == "process":
                    raise CheckpointRefused(str(dump), f"it has no files/{capture.name}.tar")
            elif capture.name == "upper":
                archives.check(archive)
                upper = archive
            else:
                archives.put_back(archive, capture.path)
        work = oci.container_folder(engine.state, container.id) / "restore"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        images = dump / "criu" if mode == "process" else None
        oci.mark_restore(engine.state, container.id, images=images, work=work, upper=upper)
    except BaseException:
        engine.remove(container.id)
        raise
    return container


def start(engine: ContainerEngine, container: JobContainer, *, timeout: float = TIMEOUT_S) -> RestoreResult:
    """Start a prepared container. On failure it is removed. Raises RestoreFailed with the tail of CRIU's log."""
    began = time.monotonic()
    work = oci.container_folder(engine.state, container.id) / "restore"
    ended = threading.Event()
    threading.Thread(target=_watch, args=(container.id, work / "restore.log", ended, timeout), daemon=True).start()
    try:
        engine.start(container.id)
    except ContainerFault as error:
        cause = diagnosis.explain_restore(error.detail, work / "restore.log")
        engine.remove(container.id)
        raise RestoreFailed(container.job_id, cause.sentence, cause.log_tail) from error
    finally:
        ended.set()
    running = engine.inspect(container.id)
    return RestoreResult(running, time.monotonic() - began)


def _watch(container: str, log: Path, ended: threading.Event, timeout: float) -> None:
    """Kill a restore that does not end, or whose log grows without end (damaged images can make CRIU loop)."""
    give_up = time.monotonic() + timeout
    while not ended.wait(0.5):
        grown = log.exists() and log.stat().st_size > LOG_LIMIT_BYTES
        if grown or time.monotonic() > give_up:
            _end_restore(container)


def _end_restore(container: str) -> None:
    """SIGKILL runc, CRIU and the half-restored tasks of one container; Docker's `start` then fails."""
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if container in words and "restore" in words:
            try:
                # The tasks first: they are nobody's children once CRIU is dead.
                for one in reversed([process, *process.children(recursive=True)]):
                    one.kill()
            except psutil.NoSuchProcess:
                continue


def resumed(spec: ContainerSpec) -> ContainerSpec:
    """The spec of a files-mode restart: the job sees EVERLEASE_RESUME=1."""
    return replace(spec, env={**spec.env, RESUME_ENV: "1"})
