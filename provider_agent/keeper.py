"""Keepers: who starts a guard, freezes its container the moment it dies, and starts it again. None of them is Python.

  systemd      a transient service per guard in ROOT-guards.slice; ExecStopPost freezes, Restart=always, no start limit
  no systemd   the kernel: a named cgroup v1 hierarchy, each guard in a cgroup of its own with notify_on_release, whose
               release agent is a shell script that freezes and starts the guard again (cgroups(7))

A guard is told by a name: its container's id, or "host". What the scripts need stands in guard.env of its folder.
"""

import os
import shlex
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from provider_agent import cgroups, versions
from provider_agent.cgroups import Layout, systemctl
from provider_agent.guard import ENDED, Freezer
from provider_agent.runtime.commands import last_line, run
from provider_agent.runtime.errors import ContainerFault
from provider_agent.runtime.everlease_runc import KEEPERS, replace_file

HOST = "host"
MOUNTS = Path(KEEPERS)
RESTART_S = 0.1
RELEASE = """#!/bin/sh
# Run by the kernel with the path of a cgroup whose last process has ended; with "start" by the agent.
PATH=/usr/sbin:/usr/bin:/sbin:/bin
name=${{1#/}}
if [ "$name" = host ]; then folder={state}; else folder={state}/containers/$name; fi
if [ ! -f "$folder/guard.env" ]; then rmdir {mount}/"$name"; exit 0; fi
. "$folder/guard.env"
if [ ! -d "$outer" ]; then rmdir {mount}/"$name"; exit 0; fi
if [ "$2" != start ]; then echo "$frozen" >"$control"; fi
echo $$ >{mount}/"$name"/cgroup.procs || exit 1
for home in $homes; do echo $$ >"$home"; done
if [ "$2" != start ]; then sleep {restart}; fi
cd /
exec "$python" -I -S "$guard" "$folder" </dev/null >/dev/null 2>&1
"""


class Keeper(Protocol):
    """Starts and stops the guard processes of one agent."""

    def start(self, name: str, folder: Path) -> None:
        """Begin to keep the guard of this name; returns before it lives. Raises ContainerFault."""

    def stop(self, name: str) -> None:
        """End a guard for good, without another start; one that is gone is fine."""

    def stop_all(self) -> None:
        """End every guard of this agent for good, host guard first, and leave nothing of the keeper behind."""


def keeper_of(state: Path) -> Keeper:
    """The keeper of this host, by what the agent's cgroups are made with."""
    layout = cgroups.layout_of(state)
    return SystemdKeeper(layout) if layout.systemd else KernelKeeper(layout, state.resolve())


def write_env(folder: Path, layout: Layout, script: str, outer: Freezer | None) -> None:
    """FOLDER/guard.env: what keeper and scripts read. The host guard has no outer cgroup: nothing is frozen for it."""
    state = folder.parent.parent if outer is not None else folder
    values = {
        "python": os.path.realpath(sys.executable),
        "guard": str(versions.install(state) / script),
        "outer": str(outer.path) if outer is not None else str(folder),
        "control": outer.control if outer is not None else "/dev/null",
        "frozen": outer.word if outer is not None else "",
        "homes": " ".join(map(str, cgroups.homes(layout, "guards"))),
    }
    lines = [f"{name}={shlex.quote(value)}" for name, value in values.items()]
    replace_file(str(folder / "guard.env"), "\n".join(lines) + "\n")


def read_env(folder: Path) -> dict[str, str]:
    """What `write_env` wrote; empty without it."""
    try:
        words = shlex.split((folder / "guard.env").read_text(encoding="utf-8"))
    except OSError:
        return {}
    return dict(word.split("=", 1) for word in words if "=" in word)


class SystemdKeeper:
    """PID 1 keeps the guards (systemd-run(1), systemd.service(5))."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def unit(self, name: str) -> str:
        """The service of a guard."""
        return f"{self._layout.root}-guard-{name[:12]}.service"

    def start(self, name: str, folder: Path) -> None:
        env = read_env(folder)
        freeze = Path(env["guard"]).with_name("freeze.sh")
        properties = [
            "Type=simple",
            "Restart=always",
            f"RestartSec={int(RESTART_S * 1000)}ms",
            "StartLimitIntervalSec=0",
            f"RestartPreventExitStatus={ENDED}",
            f"SuccessExitStatus={ENDED}",
            f"ExecStopPost=-/bin/sh {_quoted(freeze)} {_quoted(folder)}",
            "OOMScoreAdjust=-1000",
            "DefaultDependencies=no",
            "WorkingDirectory=/",
            "TimeoutStopSec=2s",
        ]
        argv = ["systemd-run", "--quiet", "--no-block", "--collect", f"--unit={self.unit(name)}"]
        argv += [f"--slice={self._layout.unit('guards')}", *(f"--property={line}" for line in properties)]
        if self._known(name) and env["guard"] not in self._shown(name, "ExecStart"):
            # PID 1 starts again and again what an earlier version's unit says.
            self.stop(name)
        done = run([*argv, "--", env["python"], "-I", "-S", env["guard"], str(folder)])
        # A unit that is there already is being started again by PID 1.
        if done.returncode != 0 and not self._known(name):
            raise ContainerFault("start the guard of", name[:12], last_line(done.stderr), retryable=True)

    def stop(self, name: str) -> None:
        systemctl("stop", self.unit(name), check=False)

    def stop_all(self) -> None:
        systemctl("stop", self.unit(HOST), check=False)
        systemctl("stop", f"{self._layout.root}-guard-*.service", check=False)
        systemctl("reset-failed", f"{self._layout.root}-guard-*.service", check=False)

    def _known(self, name: str) -> bool:
        return self._shown(name, "ActiveState") in {"active", "activating", "reloading"}

    def _shown(self, name: str, what: str) -> str:
        return run(["systemctl", "show", f"--property={what}", "--value", self.unit(name)]).stdout.strip()


class KernelKeeper:
    """The kernel keeps the guards: it runs the release agent when the last process of a guard's cgroup has ended."""

    def __init__(self, layout: Layout, state: Path) -> None:
        self._name, self._state = layout.root, state
        self.mount = MOUNTS / layout.root

    def start(self, name: str, folder: Path) -> None:
        try:
            self._prepare()
            cgroup = self.mount / name
            cgroup.mkdir(exist_ok=True)
            (cgroup / "notify_on_release").write_text("1", encoding="ascii")
        except OSError as error:
            raise ContainerFault("keep the guard of", name[:12], str(error), retryable=True) from error
        # setsid --fork: no child of the agent, neither a zombie when it ends nor in the agent's process group.
        subprocess.run(
            ["setsid", "--fork", "/bin/sh", str(self._script), f"/{name}", "start"],
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
        )

    def stop(self, name: str) -> None:
        cgroup = self.mount / name
        with suppress(OSError):
            (cgroup / "notify_on_release").write_text("0", encoding="ascii")
        give_up = time.monotonic() + cgroups.REMOVE_S
        while cgroup.is_dir() and time.monotonic() < give_up:
            with suppress(OSError):
                for pid in (cgroup / "cgroup.procs").read_text(encoding="ascii").split():
                    with suppress(OSError):
                        os.kill(int(pid), signal.SIGKILL)
                cgroup.rmdir()
                return
            time.sleep(0.005)

    def stop_all(self) -> None:
        if not os.path.ismount(self.mount):
            return
        names = [path.name for path in self.mount.iterdir() if path.is_dir()]
        for name in sorted(names, key=lambda name: name != HOST):
            self.stop(name)
        self._unmount()
        self._script.unlink(missing_ok=True)
        with suppress(OSError):
            self.mount.rmdir()
            MOUNTS.rmdir()

    def _unmount(self) -> None:
        """Until the kernel has let go of the hierarchy: one whose cgroups went a moment ago would outlive its mount."""
        give_up = time.monotonic() + cgroups.REMOVE_S
        run(["umount", str(self.mount)])
        while self.known() and time.monotonic() < give_up:
            time.sleep(0.05)
            if (
                run(["mount", "-t", "cgroup", "-o", f"none,name={self._name}", self._name, str(self.mount)]).returncode
                == 0
            ):
                run(["umount", str(self.mount)])

    def known(self) -> bool:
        """Whether the kernel has this keeper's hierarchy."""
        lines = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
        return any(line.split(":", 2)[1] == f"name={self._name}" for line in lines)

    @property
    def _script(self) -> Path:
        return self._state / "keeper.sh"

    def _prepare(self) -> None:
        """Mount the hierarchy and name the release agent; idempotent. Raises OSError."""
        quoted = {"state": shlex.quote(str(self._state)), "mount": shlex.quote(str(self.mount))}
        text = RELEASE.format(**quoted, restart=RESTART_S)
        if not self._script.exists() or self._script.read_text(encoding="utf-8") != text:
            replace_file(f"{self._script}.new", text)
            os.chmod(f"{self._script}.new", 0o700)
            os.replace(f"{self._script}.new", self._script)
        if not os.path.ismount(self.mount):
            self.mount.mkdir(parents=True, exist_ok=True, mode=0o700)
            done = run(["mount", "-t", "cgroup", "-o", f"none,name={self._name}", self._name, str(self.mount)])
            if done.returncode != 0 and not os.path.ismount(self.mount):
                raise OSError(f"the kernel mounts no named cgroup hierarchy: {last_line(done.stderr)}")
        (self.mount / "release_agent").write_text(str(self._script), encoding="utf-8")


def _quoted(path: Path) -> str:
    """A word of a command line in a unit: quoted, with what systemd would expand doubled."""
    text = str(path).replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{text}"'
