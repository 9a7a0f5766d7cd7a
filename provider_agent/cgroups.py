"""The cgroups of one agent: a root slice, below it agent, guards and jobs, below jobs one outer cgroup per container.

  systemd      ROOT.slice / ROOT-jobs.slice / ROOT-jobs-TAGxFENCE.slice, started and stopped by PID 1
  no systemd   /ROOT/jobs/TAGxFENCE, folders made by us

cgroup v1 has one tree per controller: the outer is made in the freezer's, where systemd makes none, and Docker makes
the others. STATE/cgroups.json says what was chosen, for guards too: {"root", "systemd", "version", "jobs"}.
"""

import hashlib
import json
import os
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from provider_agent.guard import Freezer
from provider_agent.runtime.commands import last_line
from provider_agent.runtime.errors import ContainerFault
from provider_agent.runtime.everlease_runc import replace_file

MOUNTS = Path("/sys/fs/cgroup")
SYSTEMD = Path("/run/systemd/system")
UNITS = Path("/run/systemd/system")
ROOT = "everlease"
"""The root of an agent that works with the host's own Docker daemon, unless it is told another."""
PARTS = ("agent", "guards", "jobs")
REMOVE_S = 3.0
MEMORY_LOW = 128 << 20
# CPU and I/O on the scale of cgroup v2 (1 to 10000, 100 by default): guards before the agent before all jobs together.
WEIGHTS = {"agent": 800, "guards": 1000, "jobs": 50}


@dataclass(frozen=True)
class Layout:
    """Where this agent's cgroups are. `version`: of the hierarchy that freezes; `mounts`: where cgroups are mounted."""

    root: str
    systemd: bool
    version: int
    mounts: Path = MOUNTS

    def unit(self, *parts: str) -> str:
        """The slice of systemd: unit("jobs", "x") is ROOT-jobs-x.slice."""
        return "-".join((self.root, *parts)) + ".slice"

    def path(self, *parts: str) -> str:
        """The cgroup's path inside a hierarchy, without a leading slash."""
        if not self.systemd:
            return "/".join((self.root, *parts))
        return "/".join(self.unit(*parts[:depth]) for depth in range(len(parts) + 1))

    def outer(self, name: str) -> Freezer:
        """The outer cgroup of one container."""
        return Freezer(self._freezers / self.path("jobs", name), self.version)

    @property
    def jobs(self) -> Path:
        """The folder that holds every outer cgroup."""
        return self._freezers / self.path("jobs")

    @property
    def trees(self) -> tuple[Path, ...]:
        """The roots of all hierarchies with controllers; one for cgroup v2 alone."""
        if self.version == 2:
            return (self._freezers,)
        found = [path for path in sorted(self.mounts.iterdir()) if (path / "cgroup.procs").exists()]
        return tuple(dict.fromkeys(path.resolve() for path in found))

    @property
    def _freezers(self) -> Path:
        if self.version == 1:
            return self.mounts / "freezer"
        return self.mounts / "unified" if (self.mounts / "unified").is_dir() else self.mounts

    def parent(self, name: str, driver: str) -> str:
        """What Docker takes as `cgroup_parent` for a container inside this outer cgroup, by its cgroup driver."""
        return self.unit("jobs", name) if driver == "systemd" else "/" + self.path("jobs", name)


def detect(root: str, *, mounts: Path = MOUNTS) -> Layout:
    """The layout of this host under the given root name."""
    version = 1 if (mounts / "freezer" / "cgroup.procs").exists() else 2
    return Layout(root, SYSTEMD.is_dir(), version, mounts)


def private_root(state: Path) -> str:
    """A root of its own for an agent that shares the machine with others; a function of its state folder."""
    return "everlease" + hashlib.sha256(str(state.resolve()).encode()).hexdigest()[:8]


def layout_of(state: Path) -> Layout:
    """The layout that `set_up` chose. Raises ContainerFault without one: nobody else picks a root for an agent."""
    try:
        raw = json.loads((state / "cgroups.json").read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ContainerFault("find the cgroups of", str(state), "no agent has set them up") from error
    return Layout(raw["root"], raw["systemd"], raw["version"])


def is_set_up(state: Path) -> bool:
    """Whether there is a layout, see `layout_of`."""
    return (state / "cgroups.json").exists()


def set_up(state: Path, root: str) -> Layout:
    """Make the slices with their weights and note them in the state folder; idempotent. Raises ContainerFault."""
    layout = detect(root)
    record = {"root": root, "systemd": layout.systemd, "version": layout.version, "jobs": str(layout.jobs)}
    if layout.systemd:
        _write_units(layout)
        systemctl("start", *(layout.unit(part) for part in PARTS))
    try:
        for part in PARTS:
            for tree in _own_trees(layout):
                (tree / layout.path(part)).mkdir(parents=True, exist_ok=True)
            if not layout.systemd:
                _weigh(layout, part)
    except OSError as error:
        raise ContainerFault("make the cgroups of", root, str(error)) from error
    state.mkdir(parents=True, exist_ok=True, mode=0o700)
    replace_file(str(state / "cgroups.json"), json.dumps(record))
    return layout


def make_outer(layout: Layout, name: str) -> Freezer:
    """Make a container's outer cgroup, before `docker create`. Raises ContainerFault."""
    outer = layout.outer(name)
    if layout.systemd:
        systemctl("start", layout.unit("jobs", name))
    try:
        outer.path.mkdir(parents=True, exist_ok=True)
        if outer.requested():
            outer.thaw()
    except OSError as error:
        raise ContainerFault("make the cgroup", str(outer.path), str(error), retryable=True) from error
    return outer


def remove_outer(layout: Layout, name: str) -> None:
    """Remove the outer cgroup everywhere once its tasks are gone; again is fine. Raises ContainerFault."""
    if layout.systemd:
        systemctl("stop", layout.unit("jobs", name), check=False)
    for tree in layout.trees:
        _remove_tree(tree / layout.path("jobs", name))


def outers(layout: Layout) -> dict[str, Freezer]:
    """The outer cgroups that there are, by name."""
    prefix, suffix = (layout.unit("jobs").removesuffix(".slice") + "-", ".slice") if layout.systemd else ("", "")
    try:
        found = [path.name for path in layout.jobs.iterdir() if path.is_dir()]
    except FileNotFoundError:
        return {}
    names = [name.removeprefix(prefix).removesuffix(suffix) for name in found if name.startswith(prefix)]
    return {name: layout.outer(name) for name in names}


def join(layout: Layout, part: str, pid: int) -> None:
    """Move a process of ours into its slice, where we made the slice ourselves; systemd starts it there."""
    if layout.systemd:
        return
    for procs in homes(layout, part):
        with suppress(OSError):
            procs.write_text(str(pid), encoding="ascii")


def homes(layout: Layout, part: str) -> tuple[Path, ...]:
    """The files into which a process of this part writes its pid; none under systemd."""
    if layout.systemd:
        return ()
    return tuple(tree / layout.path(part) / "cgroup.procs" for tree in _own_trees(layout))


def dismantle(layout: Layout) -> None:
    """Leave no cgroup of this agent behind; processes of agent and guards go back to the top."""
    for name in outers(layout):
        remove_outer(layout, name)
    for tree in layout.trees:
        for part in ("agent", "guards"):
            with suppress(OSError):
                for pid in (tree / layout.path(part) / "cgroup.procs").read_text(encoding="ascii").split():
                    with suppress(OSError):
                        (tree / "cgroup.procs").write_text(pid, encoding="ascii")
    if layout.systemd:
        systemctl("stop", layout.unit("jobs"), layout.unit("guards"), check=False)
    for tree in _own_trees(layout) if layout.systemd else layout.trees:
        _remove_tree(tree / layout.path())
    for unit in ((), *((part,) for part in PARTS), ("jobs", "")):
        drop_in = _drop_in(layout, unit)
        drop_in.unlink(missing_ok=True)
        with suppress(OSError):
            drop_in.parent.rmdir()


def systemctl(*words: str, check: bool = True) -> None:
    """Ask PID 1; Raises ContainerFault when it refuses."""
    done = subprocess.run(["systemctl", *words], capture_output=True, text=True, check=False)
    if check and done.returncode != 0:
        raise ContainerFault(f"systemctl {words[0]}", " ".join(words[1:]), last_line(done.stderr), retryable=True)


def _own_trees(layout: Layout) -> tuple[Path, ...]:
    """The trees in which agent, guards and jobs get folders of ours: under systemd v1 it leaves only the freezer's."""
    if layout.systemd:
        return (layout.jobs.parents[1],) if layout.version == 1 else ()
    wanted = {"freezer", "cpu", "cpuacct", "cpu,cpuacct", "memory", "blkio", "pids"}
    return tuple(tree for tree in layout.trees if layout.version == 2 or tree.name in wanted)


def _weigh(layout: Layout, part: str) -> None:
    """Weights where the kernel has the controller; a host without it is no worse off than before."""
    weight = WEIGHTS[part]
    values = {"cpu.weight": weight, "io.weight": weight, "io.bfq.weight": min(weight, 1000)}
    values |= {"cpu.shares": weight * 1024 // 100, "blkio.bfq.weight": min(weight, 1000)}
    if part != "jobs":
        values["memory.low"] = MEMORY_LOW
    for tree in _own_trees(layout):
        if layout.version == 2:
            for above in (tree, tree / layout.root):
                for controller in ("cpu", "io", "memory", "pids"):
                    _try_write(above / "cgroup.subtree_control", f"+{controller}")
        for name, value in values.items():
            _try_write(tree / layout.path(part) / name, str(value))


def _try_write(path: Path, text: str) -> None:
    if path.exists():
        with suppress(OSError):
            path.write_text(text, encoding="ascii")


def _write_units(layout: Layout) -> None:
    """Drop-ins until the next boot: weights, and that a shutdown leaves guards and jobs to the agent's own stop."""
    changed = False
    for parts in ((), *((part,) for part in PARTS), ("jobs", "")):
        lines = ["[Unit]", "DefaultDependencies=no", "[Slice]"]
        if len(parts) == 1:
            lines += [f"CPUWeight={WEIGHTS[parts[0]]}", f"IOWeight={WEIGHTS[parts[0]]}"]
        if parts in {("agent",), ("guards",), ()}:
            lines.append(f"MemoryLow={MEMORY_LOW if parts else 2 * MEMORY_LOW}")
        text, path = "\n".join(lines) + "\n", _drop_in(layout, parts)
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            path.chmod(0o644)  # else systemd warns of it each time it looks
            changed = True
    if changed:
        systemctl("daemon-reload")


def _drop_in(layout: Layout, parts: tuple[str, ...]) -> Path:
    return UNITS / f"{layout.unit(*parts)}.d" / "20-everlease.conf"


def _remove_tree(top: Path) -> None:
    """rmdir a cgroup and all below it; the kernel needs a moment after the last task. Raises ContainerFault."""
    give_up = time.monotonic() + REMOVE_S
    while top.is_dir():
        for folder, _, _ in os.walk(top, topdown=False):
            with suppress(OSError):
                os.rmdir(folder)
        if top.is_dir():
            if time.monotonic() > give_up:
                raise ContainerFault("remove the cgroup", str(top), "it still holds tasks", retryable=True)
            time.sleep(0.02)
