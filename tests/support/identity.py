"""What a job is before a dump and after a restore, as the job itself and the host see it: nothing may differ.

Also a script for a host of its own (PYTHONPATH at the repository's root, as root): `python -m tests.support.identity
--image ARCHIVE --criu PATH [--socket S] [--runc R] [--state DIR]` runs a job, dumps and restores it twice, prints each
difference and ends with 1 if there was one.
"""

import argparse
import json
import os
import re
import sys
import tempfile
import time
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

from everlease.image_archive import read_archive
from provider_agent import cgroups, guard, guards
from provider_agent.runtime import oci, restore
from provider_agent.runtime.checkpoint import Checkpointer, HostTools
from provider_agent.runtime.container import ContainerEngine, ContainerSpec, JobContainer, Limits
from provider_agent.runtime.daemon import use_existing

COUNTER = "import itertools, time\nfor n in itertools.count():\n    print('ok', n, flush=True); time.sleep(0.05)"
# Each line: what differs, and why it must.
EXPECTED = {
    "time": "CRIU gives a time namespace of its own, in which CLOCK_MONOTONIC goes on",
    "time_for_children": "the same",
}
INSIDE = r"""
import glob, json, os
def text(path):
    try:
        return open(path, errors="replace").read()
    except OSError as error:
        return f"errno {error.errno}"
def node(path):
    try:
        found = os.lstat(path)
    except OSError as error:
        return f"errno {error.errno}"
    return f"{found.st_mode:o} {found.st_uid}:{found.st_gid} {os.major(found.st_rdev)}:{os.minor(found.st_rdev)}"
def writable(path):
    try:
        os.close(os.open(path, os.O_WRONLY))
        return "writable"
    except OSError as error:
        return f"errno {error.errno}"
names = "acpi asound interrupts kcore keys latency_stats timer_list timer_stats sched_debug scsi".split()
masked = [f"/proc/{name}" for name in names] + ["/sys/firmware", "/sys/devices/virtual/powercap"]
unwritable = ("/proc/sys/kernel/domainname", "/proc/sysrq-trigger", "/proc/irq/default_smp_affinity", "/sys/fs/cgroup")
seen = ("cgroup", "mountinfo", "status", "limits", "uid_map", "oom_score_adj")
devices = [os.path.join(at, name) for at, folders, files in os.walk("/dev") for name in folders + files]
groups = sorted(glob.glob("/sys/fs/cgroup/*"))
print(json.dumps({
    **{name: text(f"/proc/1/{name}") for name in seen},
    "apparmor": text("/proc/1/attr/current"),
    "masked": {path: [node(path), sorted(os.listdir(path)) if os.path.isdir(path) else ""] for path in masked},
    "readonly": {path: writable(path) for path in unwritable},
    "devices": {path: node(path) for path in devices if "/pts/" not in path},
    "groups": [os.path.basename(path) for path in groups],
    "limit": text("/sys/fs/cgroup/memory.max") + text("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
    "processes": sorted(text("/sys/fs/cgroup/cgroup.procs").split())[:1],
    "hostname": os.uname().nodename,
    "environment": text("/proc/1/environ"),
    "cwd": os.readlink("/proc/1/cwd"),
}))
"""


def set_up(state: Path) -> None:
    """This host's cgroups below the root that an agent of this state folder chose; below one of our own without."""
    known = cgroups.is_set_up(state)
    cgroups.set_up(state, cgroups.layout_of(state).root if known else cgroups.private_root(state))


def look(engine: ContainerEngine, container: JobContainer, spec: ContainerSpec) -> dict[str, str]:
    """Everything that is compared, flat: name → value. What names the container or its fence is made alike."""
    code, raw = engine.execute(container.id, ("python", "-c", INSIDE))
    if code != 0:
        raise AssertionError(raw.decode())
    seen: dict[str, Any] = json.loads(raw)
    flat = {f"inside {name}": value for name, value in _flat(seen)}
    flat.update(_status(seen["status"]))
    del flat["inside status"]
    del flat["inside mountinfo"]
    flat.update({f"mount {place}": shown for place, shown in _mounts(seen["mountinfo"]).items()})
    proc = Path("/proc") / str(container.pid)
    for name in os.listdir(proc / "ns"):
        own = os.readlink(proc / "ns" / name) != os.readlink(f"/proc/self/ns/{name}")
        flat[f"namespace {name}"] = "own" if own else "the host's"
    flat["host cgroup"] = (proc / "cgroup").read_text()
    flat["host apparmor"] = _attr(proc)
    return {name: _alike(value, container, spec) for name, value in flat.items()}


def _alike(text: str, container: JobContainer, spec: ContainerSpec) -> str:
    """Without the names of this container, and without the hierarchies in which agents keep guards and no job is."""
    for name, stands_for in ((container.id, "ID"), (spec.name, "NAME"), (spec.outer, "OUTER")):
        text = text.replace(name, stands_for)
    return re.sub(r"^\d+:name=everlease\w*:/\n", "", text, flags=re.MULTILINE)


def differences(before: dict[str, str], after: dict[str, str]) -> list[str]:
    """One line per difference that nothing justifies."""
    names = sorted(before.keys() | after.keys())
    differing = [name for name in names if before.get(name) != after.get(name)]
    return [
        f"{name}: {before.get(name)!r} became {after.get(name)!r}"
        for name in differing
        if name.removeprefix("namespace ") not in EXPECTED
    ]


def _flat(values: dict[str, Any]) -> list[tuple[str, str]]:
    found = []
    for name, value in values.items():
        if isinstance(value, dict):
            found += [(f"{name} {key}", str(item)) for key, item in value.items()]
        else:
            found.append((name, str(value)))
    return found


def _attr(proc: Path) -> str:
    try:
        return (proc / "attr" / "current").read_text()
    except OSError:
        return "none"


def _status(text: str) -> dict[str, str]:
    """/proc/1/status without what a running program changes by itself: memory, signals in flight, switches."""
    moving = (
        "Vm",
        "Rss",
        "HugetlbPages",
        "voluntary",
        "nonvoluntary",
        "State",
        "FDSize",
        "SigQ",
        "Speculation",
        "Cpus",
        "Mems",
    )
    lines = (line.partition(":") for line in text.splitlines())
    # The pid that the host knows it by: new in every container.
    return {f"status {name}": value.strip() for name, _, value in lines if not name.startswith((*moving, "NStgid"))}


def _mounts(text: str) -> dict[str, str]:
    """Mounts by their place, in the order in which they cover each other, without ids and peer groups' numbers."""
    rows = [line.split(" ") for line in text.splitlines()]
    places = {row[0]: row[4] for row in rows}
    found: dict[str, str] = {}
    for row in rows:
        end = row.index("-")
        peers = sorted(word.partition(":")[0] for word in row[6:end])
        device = row[2] if not row[2].startswith("0:") else "no device"
        kind, source, options = row[end + 1 :]
        if row[3].endswith("/null") and kind != "devtmpfs":
            # A hidden file lies below a null device: the container's own at first, then one that the wrapper made.
            found[row[4]] = "null device"
            continue
        # The layers of an overlay are folders of this container alone.
        options = "layers" if kind == "overlay" else options
        shown = [places.get(row[1], "outside"), device, row[3], row[5], *peers, kind, source, options]
        found[row[4]] = " | ".join((*filter(None, (found.get(row[4]),)), " ".join(shown)))
    return found


def run(engine: ContainerEngine, checkpointer: Checkpointer, image: str, user: str | None, work: Path) -> list[str]:
    """Three generations of one job on this host; what differs between the first and each later one."""
    job = f"0x{uuid.uuid4().hex}{uuid.uuid4().hex}"
    limits = Limits(cpus=1, memory_bytes=256 << 20, disk_bytes=1 << 30)
    spec = ContainerSpec(job, 1, image, limits, ("python", "-c", COUNTER), user=user)
    found: list[str] = []
    container = engine.create(spec, work / spec.name)
    first: dict[str, str] = {}
    try:
        for fence in (1, 2, 3):
            began = time.monotonic()
            folder = oci.container_folder(engine.state, container.id)
            guards.extend(folder, guard.boottime() + 600)
            guards.ensure(folder)
            if fence == 1:
                engine.start(container.id)
            else:
                container = restore.start(engine, container).container
            container = engine.inspect(container.id)
            print(f"generation {fence}: started in {time.monotonic() - began:.1f} s", flush=True)
            _until_it_counts(engine, container)
            seen = look(engine, container, spec)
            first = first or seen
            found += [f"generation {fence}: {line}" for line in differences(first, seen)]
            if fence < 3:
                dump = checkpointer.dump(container.id, work / f"dump-{fence}", stay_frozen=True)
                print(f"generation {fence}: dumped in {dump.total_s:.1f} s, {dump.bytes >> 20} MiB", flush=True)
                engine.remove(container.id)
                spec = replace(spec, fence=fence + 1)
                container = restore.prepare(engine, spec, dump.path, work / spec.name)
    finally:
        engine.remove_job(job)
    return found


def _until_it_counts(engine: ContainerEngine, container: JobContainer) -> None:
    before = len(list(engine.logs(container.id)))
    give_up = time.monotonic() + 120
    while len(list(engine.logs(container.id))) <= before:
        if time.monotonic() > give_up:
            raise AssertionError(f"the job stands still: {engine.inspect(container.id)}")
        time.sleep(0.2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--image", type=Path, required=True)
    parser.add_argument("--criu", type=Path, required=True)
    parser.add_argument("--runc", type=Path, default=Path("/usr/sbin/runc"))
    parser.add_argument("--socket", type=Path, default=Path("/var/run/docker.sock"))
    parser.add_argument("--state", type=Path, default=Path("/var/lib/everlease-identity"))
    args = parser.parse_args()
    wrapper = oci.install_wrapper(args.state, runc=args.runc, criu=args.criu)
    set_up(args.state)
    engine = ContainerEngine(use_existing(args.socket, wrapper), args.state)
    archive = read_archive(args.image)
    if engine.images.find(archive.digest) is None:
        engine.images.load(archive)
    checkpointer = Checkpointer(HostTools(args.runc, args.criu), args.state)
    failed = False
    for user in (None, "1000:1000"):
        with tempfile.TemporaryDirectory() as work:
            found = run(engine, checkpointer, archive.digest, user, Path(work))
        print(f"user {user}: " + ("; ".join(found) or "no difference"), flush=True)
        failed = failed or bool(found)
    sys.exit(failed)


if __name__ == "__main__":
    main()
