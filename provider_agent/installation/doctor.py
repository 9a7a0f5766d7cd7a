"""`everlease provider doctor`: what this machine is as a host, sentence by sentence, and a trial of its checkpoints."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import docker

from provider_agent import cgroups, disks, guards, trial
from provider_agent.hardware import read_gpus
from provider_agent.installation import systemd, units
from provider_agent.installation.errors import InstallationError
from provider_agent.installation.host import SBIN, check_tools
from provider_agent.installation.stop import CONTROL_SOCKET
from provider_agent.runtime.capability import RuntimeCapabilities, capabilities
from provider_agent.runtime.checkpoint import Checkpointer, HostTools
from provider_agent.runtime.commands import last_line, run
from provider_agent.runtime.container import ContainerEngine
from provider_agent.runtime.daemon import use_existing
from provider_agent.runtime.errors import RuntimeFault, RuntimeNotRegistered

FREE_BYTES = 10 << 30


@dataclass(frozen=True)
class Finding:
    """One sentence about this host. ``state``: "ok", "note" (works, with less), "bad" (no jobs until it is mended)."""

    state: str
    sentence: str


def examine(
    data_dir: Path, socket: Path, criu: Path | None, *, root: str = cgroups.ROOT, installed: bool = False
) -> Iterator[Finding]:
    """All findings, each as soon as it is known; the last are the trial's. Never raises for a fault of the host.

    ``root``: of the agent's cgroups, unless it has chosen them already. Where no agent is ``installed`` or runs, the
    trial's cgroups and guards go again.
    """
    yield from _machine(data_dir)
    if os.geteuid() != 0:
        yield Finding("bad", "only root sees the rest: run this with sudo")
        return
    try:
        tools = HostTools(check_tools(), criu)
        wrapper = data_dir / "runtime" / "everlease-runc"
        client = use_existing(socket, wrapper)
    except (InstallationError, RuntimeFault) as error:
        if isinstance(error, RuntimeNotRegistered) and not installed and systemd.SYSTEM.is_dir():
            yield Finding("note", "the rest is told once 'everlease provider install' has set this machine up")
        else:
            yield Finding("bad", str(error))
        return
    if not wrapper.exists():
        client.close()
        yield Finding("bad", f"Docker knows the runtime, but {wrapper} is missing: run 'everlease provider install'")
        return
    try:
        with _cgroups(data_dir, root, keep=installed):
            yield from _runtime(client, tools, data_dir / "runtime")
    except RuntimeFault as error:
        yield Finding("bad", str(error))
    finally:
        client.close()


@contextmanager
def _cgroups(data_dir: Path, root: str, *, keep: bool) -> Iterator[None]:
    """The agent's cgroups, for the trial's containers; what was made here goes, unless an agent has come meanwhile."""
    state = data_dir / "runtime"
    ours = not cgroups.is_set_up(state)
    cgroups.set_up(state, root if ours else cgroups.layout_of(state).root)
    try:
        yield
    finally:
        busy = (data_dir / CONTROL_SOCKET).exists() or any((state / "containers").glob("*"))
        if ours and not keep and not busy:
            guards.teardown(state)


def _machine(data_dir: Path) -> Iterator[Finding]:
    name = os.uname()
    yield Finding("ok", f"the kernel is {name.release} on {name.machine}")
    if systemd.SYSTEM.is_dir():
        active = systemd.shown(units.AGENT_UNIT, "ActiveState")
        running = active == "active"
        yield Finding(
            "ok" if running else "note", f"systemd runs this machine; {units.AGENT_UNIT} is {active or 'absent'}"
        )
    else:
        yield Finding(
            "note", "systemd does not run this machine: 'provider install' can't set it up, 'provider run' works"
        )
    done = run(["iptables", "-w", "-nL", "INPUT"]) if shutil.which("iptables", path=SBIN) else None
    if done is not None and os.geteuid() == 0:
        good = done.returncode == 0
        yield Finding("ok" if good else "bad", f"iptables {'works' if good else f'fails: {last_line(done.stderr)}'}")
    gpus, driver, reason = read_gpus()
    models = ", ".join(f"{gpu.model} ({gpu.memory_bytes / (1 << 30):.0f} GiB)" for gpu in gpus)
    yield Finding("ok" if gpus else "note", f"NVIDIA's driver {driver} sees {models}" if gpus else reason)
    yield _room(next(part for part in (data_dir, *data_dir.parents) if part.exists()), "checkpoints, blocks and images")


def _room(folder: Path, what: str) -> Finding:
    free = disks.free((folder,))
    return Finding(
        "ok" if free >= FREE_BYTES else "note", f"{free / (1 << 30):.1f} GiB are free in {folder} for {what}"
    )


def _runtime(client: docker.DockerClient, tools: HostTools, state: Path) -> Iterator[Finding]:
    try:
        found = capabilities(client, tools)
    except RuntimeFault as error:
        yield Finding("bad", str(error))
        return
    info = client.info()
    yield Finding(
        "ok",
        f"Docker {found.docker} ({found.storage_driver}, cgroups {found.cgroup} by {info.get('CgroupDriver')}) with "
        f"runc {found.runc} runs our runtime",
    )
    for folder in disks.apart(disks.of_jobs(state, info))[1:]:
        yield _room(folder, "the jobs' layers and logs, which count as well")
    if not found.process_mode:
        yield Finding("note", found.reason)
        return
    yield Finding("ok", f"CRIU {found.criu} is in {tools.criu}")
    yield from _tried(found, ContainerEngine(client, state), Checkpointer(tools, state))


def _tried(found: RuntimeCapabilities, engine: ContainerEngine, dumper: Checkpointer) -> Iterator[Finding]:
    for step in trial.attempt(engine, dumper):
        if step.reason:
            yield Finding("note", f"a container run by {step.user} can't be checkpointed here: {step.reason}")
        else:
            yield Finding(
                "ok",
                f"a container run by {step.user} was dumped in {step.dump_s} s, restored in {step.restore_s} s, and "
                "went on where it was",
            )
