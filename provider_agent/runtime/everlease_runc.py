"""The OCI runtime `everlease-runc`: runc, except that a container marked for restore is restored where Docker says
`create`.

Copied into the agent's state folder (versions.py) and run as `python3 -I -S`: the standard library alone, and guard.py
and rootfs.py from the same copy. Docker calls it for every container operation, so it stays small. It never touches
stdio: whatever is open at `create` becomes the job's own, and a second checkpoint fails on a redirected stderr. Why it
refuses a container it says in runc's log, which Docker hands on.

Folder of a container: STATE/containers/ID, made by the agent before `docker start`.
  criu.conf      CRIU options for every dump and restore (annotation org.criu.config); its `external` lines are written
                 here, for a restore alone
  start          permission for one start, made by the agent (oci.permit_start) and consumed here, so that `docker
                 restart` can't run a job's program from its beginning
  restore.json   marker {"images", "work", "upper"}, each a path or null: put the archive `upper` back and restore from
                 `images`, once; renamed to restore.consumed first
  bundle.json    written here: what a later `runc checkpoint` needs {"root", "bundle", "pid_file", "systemd_cgroup"}
  upper          written here: link to the container's writable layer
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING or __package__:
    from provider_agent import guard
    from provider_agent.runtime import rootfs
else:
    # The copy, run as a script: -I leaves its folder out of the path.
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    import guard
    import rootfs

GLOBAL_VALUES = {"--root", "--log", "--log-format", "--criu", "--rootless"}
CREATE_VALUES = {"--bundle", "-b", "--console-socket", "--pid-file", "--preserve-fds"}
RESTORE_TAKES = {
    "--bundle": "--bundle",
    "-b": "--bundle",
    "--console-socket": "--console-socket",
    "--pid-file": "--pid-file",
}
Options = list[tuple[str, str | None]]
KEEPERS = "/run/everlease-keeper"
DENIED_SYSCALLS = {"io_uring_setup", "io_uring_enter", "io_uring_register"}
CGROUPS = "/sys/fs/cgroup"
# The hierarchies of cgroup v1 in which runc gives every container a cgroup of its own.
RUNC_JOINS = {"cpuset", "cpu", "cpuacct", "memory", "devices", "freezer", "net_cls", "net_prio", "perf_event"}
RUNC_JOINS |= {"blkio", "hugetlb", "pids", "systemd"}


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
        raise rootfs.Refused("the Docker daemon runs containers without its seccomp profile; jobs are refused")
    for rule in seccomp.get("syscalls") or []:
        rule["names"] = [name for name in rule["names"] if name not in DENIED_SYSCALLS]
    seccomp["syscalls"] = [rule for rule in seccomp.get("syscalls") or [] if rule["names"]]
    if criu_conf:
        config.setdefault("annotations", {})["org.criu.config"] = criu_conf


def create(
    settings: dict[str, Any],
    options: Options,
    create_options: Options,
    container: str,
    mountinfo: str = rootfs.MOUNTINFO,
) -> list[str]:
    """The argument list to run for `create`: runc create, or runc restore when the container is marked.

    Raises Refused.
    """
    given = dict(create_options)
    bundle = given.get("--bundle") or given.get("-b") or os.getcwd()
    folder = os.path.join(settings["state"], "containers", container)
    ours = os.path.isdir(folder)
    if ours:
        take_permission(folder)
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
        overlay = rootfs.find_overlay(os.path.join(bundle, config["root"]["path"]), mountinfo)
        point(os.path.join(folder, "upper"), overlay.upper)
        restore = take_marker(folder)
        if restore is not None and restore["upper"] is not None:
            rootfs.put_back(overlay, restore["upper"])
    if restore is None or restore["images"] is None:
        return [settings["runc"], *join_options(options), "create", *join_options(create_options), container]
    replace_file(criu_conf, f"{dump_options(criu_conf)}{restore_options(folder, config, mountinfo)}")
    adjust_oom(config)
    passed = [(RESTORE_TAKES[name], value) for name, value in create_options if name in RESTORE_TAKES]
    folders: Options = [("--image-path", restore["images"]), ("--work-path", restore["work"])]
    words = ["restore", "--detach", "--tcp-established", "--file-locks", *join_options(folders)]
    words += [*lsm_profile(config), *join_options(passed), container]
    if private_cgroups(config):
        find_first(settings["shim"])
    return [settings["runc"], *join_options(options), *words]


def find_first(criu: str) -> None:
    """Have runc find this CRIU: newer ones look in PATH alone, and warn of --criu in the job's own output."""
    os.environ["PATH"] = os.pathsep.join([os.path.dirname(criu), os.environ.get("PATH", os.defpath)])


def lsm_profile(config: dict[str, Any]) -> list[str]:
    """CRIU would take the AppArmor profile from the images of a stranger's host: it is this container's own."""
    profile = config.get("process", {}).get("apparmorProfile")
    return ["--lsm-profile", f"apparmor:{profile}"] if profile else []


def dump_options(criu_conf: str) -> str:
    """What criu.conf says but for its `external` lines, which would name other mounts in a later dump."""
    with open(criu_conf, encoding="utf-8") as lines:
        return "".join(line for line in lines if not line.startswith("external "))


def restore_options(folder: str, config: dict[str, Any], mountinfo: str) -> str:
    """Where CRIU takes mounts from that runc would take from the host, wrongly.

    runc hides files below the host's /dev/null, whose mode a job could change; and on cgroup v1 it binds the cgroups
    that runc itself is in, which is the host's whole tree. Raises Refused where a null device can't be opened.
    """
    if os.statvfs(folder).f_flag & os.ST_NODEV:
        raise rootfs.Refused("the agent's data folder is on a file system mounted nodev: no memory is restored there")
    null, nothing = os.path.join(folder, "null"), os.path.join(folder, "nothing")
    if not os.path.lexists(null):
        os.mknod(null, 0o020666, os.makedev(1, 3))
        os.chmod(null, 0o666)  # noqa: S103 (as every null device)
    os.makedirs(nothing, mode=0o755, exist_ok=True)
    lines = [f"external mnt[/dev/null]:{null}\n"]
    own = cgroup_path(config.get("linux", {}).get("cgroupsPath") or "")
    with open(mountinfo, encoding="utf-8", errors="surrogateescape") as mounts:
        for words in (line.split() for line in mounts):
            place, kind = rootfs.unescape(words[4]), words[words.index("-") + 1]
            if kind == "cgroup" and os.path.dirname(place) == CGROUPS:
                joined = set(os.path.basename(place).split(",")) <= RUNC_JOINS
                lines.append(f"external mnt[{place}]:{place + own if joined and own else nothing}\n")
    return "".join(lines)


def cgroup_path(given: str) -> str:
    """A container's cgroup on v1, by the spec's cgroupsPath: a path, or systemd's slice:prefix:name."""
    if given.count(":") != 2:
        return given if given.startswith("/") else ""
    slice_name, prefix, name = given.split(":")
    parts = slice_name.removesuffix(".slice").split("-")
    slices = ["-".join(parts[: n + 1]) + ".slice" for n in range(len(parts))]
    return "/" + "/".join([*slices, f"{prefix}-{name}.scope"])


def adjust_oom(config: dict[str, Any]) -> None:
    """CRIU leaves a score of 0 as inherited, and containerd's is not 0."""
    score = config.get("process", {}).get("oomScoreAdj") or 0
    with open("/proc/self/oom_score_adj", "w", encoding="ascii") as stream:
        stream.write(str(score))


def private_cgroups(config: dict[str, Any]) -> bool:
    """Whether the container gets a cgroup namespace of its own, as Docker does on cgroup v2."""
    listed = config.get("linux", {}).get("namespaces") or []
    return any(namespace.get("type") == "cgroup" and not namespace.get("path") for namespace in listed)


def point(link: str, target: str) -> None:
    """Make or replace a symlink in one step."""
    part = f"{link}.part"
    if os.path.lexists(part):
        os.unlink(part)
    os.symlink(target, part)
    os.replace(part, link)


def take_permission(folder: str) -> None:
    """Consume the agent's permission for this start. Raises Refused when there is none."""
    try:
        os.unlink(os.path.join(folder, "start"))
    except FileNotFoundError:
        raise rootfs.Refused("it was not started by the agent, which alone knows where the job goes on") from None


def take_marker(folder: str) -> dict[str, str | None] | None:
    """The restore marker's content, consumed so that a second start can't rewind memory over newer files; else None."""
    marker, consumed = os.path.join(folder, "restore.json"), os.path.join(folder, "restore.consumed")
    try:
        os.rename(marker, consumed)
    except FileNotFoundError:
        return None
    with open(consumed, encoding="utf-8") as stream:
        marked: dict[str, str | None] = json.load(stream)
    if marked["images"] is None:
        os.rename(consumed, f"{consumed}.started")
    return marked


def started_by_restore(settings: dict[str, Any], container: str) -> bool:
    """Whether runc restore has already set the container running, so that `start` has nothing to do; said once."""
    consumed = os.path.join(settings["state"], "containers", container, "restore.consumed")
    try:
        os.rename(consumed, f"{consumed}.started")
    except FileNotFoundError:
        return False
    criu_conf = os.path.join(settings["state"], "containers", container, "criu.conf")
    replace_file(criu_conf, dump_options(criu_conf))
    return True


def refuse(options: Options, sentence: str) -> None:
    """End with the sentence where Docker looks for it: as the last error in runc's log, a line of JSON."""
    said, log = f"everlease-runc: {sentence}", dict(options).get("--log")
    if log is None:
        raise SystemExit(said)
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    with open(log, "a", encoding="utf-8") as stream:
        stream.write(json.dumps({"level": "error", "msg": said, "time": stamp}) + "\n")
    raise SystemExit(1)


def refuse_unguarded(settings: dict[str, Any], container: str) -> None:
    """Raise Refused when one of our containers would begin to run without a living guard or past its lease."""
    folder = Path(settings["state"], "containers", container)
    if not folder.is_dir():
        return
    why = guard.refusal(folder)
    if why is not None:
        raise rootfs.Refused(f"{why}, so it is not started")


def command_for(settings: dict[str, Any], argv: list[str], options: Options, rest: list[str]) -> list[str] | None:
    """The argument list to run instead of ourselves; None when all is done. Raises Refused."""
    if rest and rest[0] == "create":
        create_options, names = split_options(rest[1:], CREATE_VALUES)
        if len(names) == 1:
            refuse_unguarded(settings, names[0])
            command = create(settings, options, create_options, names[0])
            rootfs.hide_cgroups(KEEPERS)
            return command
    elif len(rest) == 2 and rest[0] == "start":
        refuse_unguarded(settings, rest[1])
        if started_by_restore(settings, rest[1]):
            return None
    return [settings["runc"], *argv]


def main(argv: list[str]) -> None:
    # STATE/code/DIGEST/everlease_runc.py
    state = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    with open(os.path.join(state, "everlease-runc.json"), encoding="utf-8") as stream:
        settings = json.load(stream)
    options, rest = split_options(argv, GLOBAL_VALUES)
    if settings["criu"]:
        find_first(settings["criu"])
    command: list[str] | None = None
    try:
        command = command_for(settings, argv, options, rest)
    except (rootfs.Refused, OSError) as error:
        refuse(options, str(error))
    if command is None:
        return
    os.execv(command[0], command)  # noqa: S606 (this process becomes runc)


if __name__ == "__main__":
    main(sys.argv[1:])
