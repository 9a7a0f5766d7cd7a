"""The OCI runtime `everlease-runc`: runc, except that a container marked for restore is restored where Docker says
`create`.

Copied into the agent's state folder by oci.install_wrapper and run as `python3 -I -S`: the standard library alone, no
imports
from this package. Docker calls it for every container operation, so it stays small. It never touches stdio: whatever
is open at `create` becomes the job's own, and a second checkpoint fails on a redirected stderr.

Folder of a container: STATE/containers/ID, made by the agent before `docker start`.
  criu.conf      CRIU options for every later dump (annotation org.criu.config)
  restore.json   marker {"images", "work"}: restore once instead of create; renamed to restore.consumed first
  bundle.json    written here: what a later `runc checkpoint` needs {"root", "bundle", "pid_file", "systemd_cgroup"}
"""

import json
import os
import sys
from typing import Any

GLOBAL_VALUES = {"--root", "--log", "--log-format", "--criu", "--rootless"}
CREATE_VALUES = {"--bundle", "-b", "--console-socket", "--pid-file", "--preserve-fds"}
RESTORE_TAKES = {
    "--bundle": "--bundle",
    "-b": "--bundle",
    "--console-socket": "--console-socket",
    "--pid-file": "--pid-file",
}
Options = list[tuple[str, str | None]]
DENIED_SYSCALLS = {"io_uring_setup", "io_uring_enter", "io_uring_register"}


def split_options(argv: list[str], with_value: set[str]) -> tuple[Options, list[str]]:
    """([(option, value or None)], the rest) of the leading options in argv; understands `--a b` and `--a=b`."""
    options: Options = []
    i = 0
    while i < len(argv) and argv[i].startswith("-"):
        name, equals, value = argv[i].partition("=")
        if equals:
            options.append((name, value))
        elif name in with_value and i + 1 < len(argv):
            i += 1
            options.append((name, argv[i]))
        else:
            options.append((name, None))
        i += 1
    return options, argv[i:]


def join_options(options: Options) -> list[str]:
    """The inverse of split_options, in the `--a b` form."""
    return [word for name, value in options for word in ((name,) if value is None else (name, value))]


def replace_file(path: str, text: str) -> None:
    """Write a file so that a reader sees the old text or the new one."""
    part = f"{path}.part"
    with open(part, "w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(part, path)


def harden(config: dict[str, Any], criu_conf: str | None) -> None:
    """Deny io_uring and point CRIU at its options in a bundle's config, in place; refuses a bundle without seccomp."""
    seccomp = config.get("linux", {}).get("seccomp")
    if not seccomp or seccomp.get("defaultAction") not in {"SCMP_ACT_ERRNO", "SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS"}:
        raise SystemExit(
            "everlease-runc: the Docker daemon runs containers without its seccomp profile; jobs are refused"
        )
    for rule in seccomp.get("syscalls") or []:
        rule["names"] = [name for name in rule["names"] if name not in DENIED_SYSCALLS]
    seccomp["syscalls"] = [rule for rule in seccomp.get("syscalls") or [] if rule["names"]]
    if criu_conf:
        config.setdefault("annotations", {})["org.criu.config"] = criu_conf


def create(settings: dict[str, Any], options: Options, create_options: Options, container: str) -> list[str]:
    """The argument list to run for `create`: runc create, or runc restore when the container is marked."""
    given = dict(create_options)
    bundle = given.get("--bundle") or given.get("-b") or os.getcwd()
    folder = os.path.join(settings["state"], "containers", container)
    ours = os.path.isdir(folder)
    criu_conf = os.path.join(folder, "criu.conf")
    config_path = os.path.join(bundle, "config.json")
    with open(config_path, encoding="utf-8") as stream:
        config = json.load(stream)
    harden(config, criu_conf if os.path.exists(criu_conf) else None)
    replace_file(config_path, json.dumps(config))
    restore = None
    if ours:
        record = {
            "root": dict(options).get("--root"),
            "bundle": bundle,
            "pid_file": given.get("--pid-file"),
            "systemd_cgroup": ("--systemd-cgroup", None) in options,
        }
        replace_file(os.path.join(folder, "bundle.json"), json.dumps(record))
        restore = take_marker(folder)
    if restore is None:
        return [settings["runc"], *join_options(options), "create", *join_options(create_options), container]
    passed = [(RESTORE_TAKES[name], value) for name, value in create_options if name in RESTORE_TAKES]
    words = ["restore", "--detach", "--tcp-established", "--file-locks", "--image-path", restore["images"]]
    words += ["--work-path", restore["work"], *join_options(passed), container]
    return [settings["runc"], *join_options(options), "--criu", settings["criu"], *words]


def take_marker(folder: str) -> dict[str, str] | None:
    """The restore marker's content, consumed so that a second start can't rewind memory over newer files; else None."""
    marker, consumed = os.path.join(folder, "restore.json"), os.path.join(folder, "restore.consumed")
    try:
        os.rename(marker, consumed)
    except FileNotFoundError:
        return None
    with open(consumed, encoding="utf-8") as stream:
        marked: dict[str, str] = json.load(stream)
    return marked


def started_by_restore(settings: dict[str, Any], container: str) -> bool:
    """Whether runc restore has already set the container running, so that `start` has nothing to do; said once."""
    consumed = os.path.join(settings["state"], "containers", container, "restore.consumed")
    try:
        os.rename(consumed, f"{consumed}.started")
    except FileNotFoundError:
        return False
    return True


def main(argv: list[str]) -> None:
    with open(
        os.path.join(os.path.dirname(os.path.abspath(__file__)), "everlease-runc.json"), encoding="utf-8"
    ) as stream:
        settings = json.load(stream)
    options, rest = split_options(argv, GLOBAL_VALUES)
    command = [settings["runc"], *argv]
    if rest and rest[0] == "create":
        create_options, names = split_options(rest[1:], CREATE_VALUES)
        if len(names) == 1:
            command = create(settings, options, create_options, names[0])
    elif len(rest) == 2 and rest[0] == "start" and started_by_restore(settings, rest[1]):
        return
    # runc 1.2 and newer ignore --criu and look in PATH.
    if settings["criu"]:
        os.environ["PATH"] = os.pathsep.join([os.path.dirname(settings["criu"]), os.environ.get("PATH", os.defpath)])
    os.execv(command[0], command)  # noqa: S606 (this process becomes runc)


if __name__ == "__main__":
    main(sys.argv[1:])
