"""Install the runtime `everlease-runc` and keep the folder that it and CRIU read for each container.

STATE/everlease-runc          what Docker runs: the copy of everlease_runc.py in STATE/code/DIGEST (versions.py)
STATE/everlease-runc.json     its settings
STATE/criu/criu               link to CRIU, whatever its file is called: runc finds it by PATH
STATE/shim/criu               what runc starts as CRIU on cgroup v2, see criu_shim.py
STATE/containers/ID/          see everlease_runc.py; also action (CRIU's action script) and target (link to the dump in
                              progress)
"""

import json
import os
import shlex
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from provider_agent import versions
from provider_agent.guard import Freezer
from provider_agent.runtime import everlease_runc
from provider_agent.runtime.errors import ContainerFault

RUNTIME_NAME = "everlease"
TAR = "tar --create --sparse --numeric-owner --acls --xattrs '--xattrs-include=*' --warning=no-file-ignored"
# cgroups are runc's alone: the images of a stranger's host must not write any of this one's.
CRIU_OPTIONS = ("tcp-established", "file-locks", "link-remap", "ghost-limit 1G", "manage-cgroups=ignore")


@dataclass(frozen=True)
class Capture:
    """A folder of the host whose files belong to a checkpoint: the overlay's upper dir, /checkpoint, or an image's
    volume.
    """

    name: str
    path: Path


@dataclass(frozen=True)
class Bundle:
    """What the wrapper noted at `create`: runc's root, the bundle, the file with init's pid, the cgroup driver."""

    root: Path
    bundle: Path
    pid_file: Path
    systemd_cgroup: bool


def install_wrapper(state: Path, *, runc: Path, criu: Path | None) -> Path:
    """Write the wrapper into the state folder and return its path, to be registered with Docker as runtime `everlease`.

    Idempotent; every file is replaced atomically because Docker may run it at any moment.
    """
    state.mkdir(parents=True, exist_ok=True)
    (state / "containers").mkdir(exist_ok=True)
    os.chmod(state, 0o700)
    code = versions.install(state)
    settings = {"runc": str(runc), "criu": None, "shim": None, "state": str(state.resolve())}
    if criu is not None:
        settings |= {"criu": str(install_criu(state, criu)), "shim": str(install_shim(state, code, criu))}
    everlease_runc.replace_file(str(state / "everlease-runc.json"), json.dumps(settings))
    wrapper = _launcher(state / "everlease-runc", code / "everlease_runc.py")
    versions.collect(state)
    return wrapper


def install_criu(state: Path, criu: Path) -> Path:
    """Point STATE/criu/criu at CRIU, alone in its folder because runc 1.2 and newer find CRIU by PATH."""
    link = state.resolve() / "criu" / "criu"
    link.parent.mkdir(exist_ok=True)
    everlease_runc.point(str(link), str(criu.absolute()))
    return link


def install_shim(state: Path, code: Path, criu: Path) -> Path:
    """Write STATE/shim/criu, alone in its folder as well."""
    folder = state / "shim"
    folder.mkdir(exist_ok=True)
    return _launcher(folder / "criu", code / "criu_shim.py", str(criu))


def _launcher(path: Path, script: Path, *first: str) -> Path:
    """An executable that runs one of our scripts with these first arguments."""
    # The base interpreter, not the environment's: a broken environment must not stop the host's containers.
    words = [os.path.realpath(sys.executable), "-I", "-S", str(script.resolve()), *first]
    everlease_runc.replace_file(f"{path}.new", f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
    os.chmod(f"{path}.new", 0o700)
    os.replace(f"{path}.new", path)
    return path.resolve()


def container_folder(state: Path, container: str) -> Path:
    """STATE/containers/ID; refuses an id that is not Docker's 64 hex digits."""
    if len(container) != 64 or not set(container) <= set("0123456789abcdef"):
        raise ContainerFault("find", container[:80], "a container id has 64 hex digits")
    return state.resolve() / "containers" / container


def prepare(state: Path, container: str, captures: tuple[Capture, ...], address: str) -> Path:
    """Write the files that CRIU reads at a dump or restore; `address` is the job's own. Call it after `docker
    create`, before `docker start`. The writable layer is captured first, by the link that the wrapper makes.
    """
    folder = container_folder(state, container)
    folder.mkdir(parents=True, exist_ok=True)
    captures = (Capture("upper", folder / "upper"), *captures)
    script = folder / "action"
    everlease_runc.replace_file(str(script), action_script(folder, captures, address))
    os.chmod(script, 0o700)
    listed = json.dumps([[capture.name, str(capture.path)] for capture in captures])
    everlease_runc.replace_file(str(folder / "captures.json"), listed)
    options = "\n".join((*CRIU_OPTIONS, f"action-script {script}"))
    everlease_runc.replace_file(str(folder / "criu.conf"), f"{options}\n")
    return folder


def action_script(folder: Path, captures: tuple[Capture, ...], address: str) -> str:
    """CRIU runs it at each stage of a dump and of a restore.

    post-dump: the tasks are still frozen, so files and memory agree. pre-resume: sockets are back and no task runs
    yet, so connections that leave the container, which belong to the old host, are reset (the kernel's SOCK_DESTROY);
    loopback and
    connections of the container to itself stay. Where the kernel can't, the firewall resets them at their next packet.
    """
    tars = [
        f"  {TAR} --file files/{capture.name}.tar --directory {shlex.quote(str(capture.path))} ."
        for capture in captures
    ]
    cut = f"ss --kill --tcp state connected exclude time-wait not dst 127.0.0.0/8 and not dst {address}"
    lines = [
        "#!/bin/sh",
        'case "$CRTOOLS_SCRIPT_ACTION" in',
        "post-dump)",
        "  set -eu",
        f"  cd {shlex.quote(str(folder / 'target'))}",
        "  exec 2>work/files.log",
        *tars,
        "  ;;",
        "pre-resume)",
        f'  nsenter --net="/proc/$CRTOOLS_INIT_PID/ns/net" {cut} >{shlex.quote(str(folder / "cut.log"))} 2>&1',
        "  ;;",
        "esac",
        "exit 0",
        "",
    ]
    return "\n".join(lines)


def snapshot_script(target: Path, source: Path, freezer: Freezer | None) -> str:
    """Archive one folder while the container stands still; what guards froze meanwhile stays frozen by the cgroup
    around this one.
    """
    archive = (
        f"{TAR} --file {shlex.quote(str(target / 'files' / 'checkpoint.tar'))} --directory {shlex.quote(str(source))} ."
    )
    if freezer is None:
        return archive
    control = shlex.quote(str(freezer.control))
    thaw = "THAWED" if freezer.version == 1 else "0"
    return f"echo {freezer.word} >{control}; {archive}; code=$?; echo {thaw} >{control}; exit $code"


def captures_of(state: Path, container: str) -> tuple[Capture, ...]:
    """The captures recorded by `prepare`. The writable layer exists from the container's start on."""
    listed = json.loads((container_folder(state, container) / "captures.json").read_text(encoding="utf-8"))
    return tuple(Capture(name, Path(path).resolve()) for name, path in listed)


def mark_restore(state: Path, container: str, *, images: Path | None, work: Path, upper: Path | None) -> None:
    """Make the next `docker start` of this container put the archive `upper` back into its writable layer, and
    restore from `images`; either may be None. CRIU logs into `work`.
    """
    marker = {"images": images, "work": work, "upper": upper}
    text = json.dumps({name: str(path.resolve()) if path else None for name, path in marker.items()})
    everlease_runc.replace_file(str(container_folder(state, container) / "restore.json"), text)


def permit_start(state: Path, container: str) -> None:
    """Let the next `docker start` of this container pass the wrapper, once. Raises OSError."""
    (container_folder(state, container) / "start").touch(mode=0o600)


def withdraw_start(state: Path, container: str) -> None:
    """Take a permission back that Docker made no use of."""
    (container_folder(state, container) / "start").unlink(missing_ok=True)


def read_bundle(state: Path, container: str) -> Bundle:
    """The wrapper's note; raises ContainerFault when the container was never started through the runtime."""
    try:
        raw = json.loads((container_folder(state, container) / "bundle.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ContainerFault("find", container[:12], "it was never started by the runtime 'everlease'") from None
    return Bundle(Path(raw["root"]), Path(raw["bundle"]), Path(raw["pid_file"]), raw["systemd_cgroup"])


def forget(state: Path, container: str) -> None:
    """Remove the container's folder."""
    shutil.rmtree(container_folder(state, container), ignore_errors=True)
