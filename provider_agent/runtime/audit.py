"""Look through CRIU's images before CRIU does: a stranger's host wrote them, and CRIU restores what they say as root.

Refused are images that would give a task rights beyond the job's spec: capabilities, no seccomp or a weaker one, no
no_new_privs, no AppArmor profile where this host has them, walls left out (enclosure.py), real-time scheduling, and
image kinds that configure the host (network devices, firewall rules, user namespaces). Message numbers are those of
CRIU 4.2's images/*.proto.
"""

import platform
import re
from dataclasses import dataclass
from pathlib import Path

from provider_agent.runtime import enclosure, seccomp
from provider_agent.runtime.container import KEPT_CAPABILITIES
from provider_agent.runtime.errors import CheckpointRefused
from provider_agent.runtime.wire_images import child, fields, messages, numbers

# linux/capability.h
CAPABILITY_BITS = {
    "CHOWN": 0, "DAC_OVERRIDE": 1, "FOWNER": 3, "FSETID": 4, "KILL": 5, "SETGID": 6, "SETUID": 7,
    "NET_BIND_SERVICE": 10,
}  # fmt: skip
ALLOWED_MASK = sum(1 << CAPABILITY_BITS[name] for name in KEPT_CAPABILITIES)
CAPABILITY_FIELDS = {9: "inheritable", 10: "permitted", 11: "effective", 12: "bounding", 19: "ambient"}
LSM_PROFILE, NO_NEW_PRIVS, SECCOMP_FILTER_MODE = 15, 18, 2
PE_PRESENT, PAGE, TSYNC = 4, 4096, 1
FORBIDDEN = re.compile(
    r"(netdev|ifaddr|route6?|rule|iptables|ip6tables|nftables|netns|autofs|userns|creds|bpfmap-.*)-\d+\.img"
    r"|(tunfile|apparmor|binfmt-misc.*)\.img"
)
ORDINARY_SCHEDULING = {0, 3, 5}  # other, batch, idle: a real-time task would take the CPU from its host


@dataclass(frozen=True)
class Filter:
    """A seccomp filter: its program, the index of the filter below it, its SECCOMP_FILTER_FLAG_ bits."""

    program: bytes
    below: int | None
    flags: int


def check_images(images: Path, cgroup: str, *, apparmor: bool) -> None:
    """Raise CheckpointRefused when the images of a process checkpoint ask for more than any job gets, or are
    damaged. `cgroup` is this host's version, "v1" or "v2"; `apparmor`: whether it confines containers by AppArmor.
    """
    try:
        processes = [numbers(process, 1)[-1] for process in messages(images / "pstree.img")]
        living = [pid for pid in processes if not _dead(images, pid)]
        reason = (
            _forbidden(images)
            or (None if processes[:1] == living[:1] else "its first task is dead")
            or enclosure.namespaces(images, living, cgroup)
            or enclosure.mounts(images, cgroup)
            or enclosure.files(images)
            or _tasks(images, apparmor=apparmor)
            or _pages(images)
        )
    except (ValueError, IndexError, StopIteration, OSError) as error:
        raise CheckpointRefused(str(images), f"its images are damaged ({error})") from error
    if reason:
        raise CheckpointRefused(str(images), reason)


def _forbidden(images: Path) -> str | None:
    for path in images.iterdir():
        if path.is_symlink() or not path.is_file():
            return f"{path.name[:80]} is no plain file"
        if FORBIDDEN.fullmatch(path.name):
            return f"{path.name[:80]} would configure the host"
    return None


def _tasks(images: Path, *, apparmor: bool) -> str | None:
    filters = _filters(images)
    processes = list(messages(images / "pstree.img"))
    for process in processes:
        leader = numbers(process, 1)[-1]
        if process is not processes[0] and _dead(images, leader):
            continue
        reason = _thread(images, leader, filters, synced=False, apparmor=apparmor)
        if reason:
            return reason
        # CRIU stores no filter for threads that share their leader's; SECCOMP_FILTER_FLAG_TSYNC gives it to them.
        top = numbers(child(_core(images, leader), 5) or b"", 12)[-1]
        for thread in set(numbers(process, 5)) - {leader}:
            synced = bool(filters[top].flags & TSYNC)
            reason = _thread(images, thread, filters, synced=synced, apparmor=apparmor)
            if reason:
                return reason
    return None if processes else "it has no tasks"


def _dead(images: Path, pid: int) -> bool:
    """A zombie has neither credentials nor namespaces: CRIU lets it exit again before it runs anything."""
    return numbers(child(_core(images, pid), 3) or b"", 1) in ([2], [6])


def _core(images: Path, tid: int) -> bytes:
    return next(messages(images / f"core-{tid}.img"))


def _thread(images: Path, tid: int, filters: list[Filter], *, synced: bool, apparmor: bool) -> str | None:
    """Why a thread may not run; `synced` when it gets its leader's filters."""
    core = _core(images, tid)
    if child(core, 4) is not None:
        return f"task {tid} names its namespaces twice"
    thread = child(core, 5)
    creds = child(thread, 10) if thread is not None else None
    if thread is None or creds is None:
        return f"task {tid} has no credentials"
    if set(numbers(thread, 4)) - ORDINARY_SCHEDULING:
        return f"task {tid} runs in real time"
    reason = _rights(creds) or _confinement(creds, apparmor)
    if reason is None and not (synced and not numbers(thread, 11)):
        reason = _seccomp(thread, filters)
    return f"task {tid} {reason}" if reason else None


def _pages(images: Path) -> str | None:
    """Each pages file must be as long as its pagemaps say: CRIU 4.2 reads on for ever past the end of a short one."""
    promised: dict[int, int] = {}
    for path in images.glob("pagemap-*.img"):
        head, *entries = messages(path)
        pages = numbers(head, 1)[-1]
        promised.setdefault(pages, 0)
        for entry in entries:
            flags = numbers(entry, 4)
            if not flags or flags[-1] & PE_PRESENT:
                promised[pages] += (numbers(entry, 5) or numbers(entry, 2))[-1] * PAGE
    for number, size in promised.items():
        path = images / f"pages-{number}.img"
        if (path.stat().st_size if path.exists() else 0) < size:
            return f"pages-{number}.img is shorter than its pagemap says"
    return None


def _rights(creds: bytes) -> str | None:
    for number, name in CAPABILITY_FIELDS.items():
        words = numbers(creds, number)
        held = sum(word << (32 * index) for index, word in enumerate(words))
        if held & ~ALLOWED_MASK:
            return f"has {name} capabilities that jobs don't get ({held & ~ALLOWED_MASK:#x})"
    return None if numbers(creds, NO_NEW_PRIVS) == [1] else "may gain privileges (no_new_privs is off)"


def _confinement(creds: bytes, apparmor: bool) -> str | None:
    """Which profile a task gets is our word (--lsm-profile), but CRIU gives it only to one that had a profile."""
    if bool(child(creds, LSM_PROFILE)) == apparmor:
        return None
    return "would run without an AppArmor profile" if apparmor else "names a security profile, and this host has none"


def _seccomp(thread: bytes, filters: list[Filter]) -> str | None:
    if numbers(thread, 11) != [SECCOMP_FILTER_MODE] or not numbers(thread, 12):
        return "runs without a seccomp filter"
    chain: list[bytes] = []
    index: int | None = numbers(thread, 12)[-1]
    while index is not None:
        if index >= len(filters) or len(chain) > 32:
            return "names a seccomp filter that is not there"
        chain.append(filters[index].program)
        index = filters[index].below
    if platform.machine() != "x86_64":
        return None
    passed = seccomp.allowed(chain)
    return f"has a seccomp filter that allows {', '.join(passed[:3])}" if passed else None


def _filters(images: Path) -> list[Filter]:
    """The filters of seccomp.img, by index."""
    if not (images / "seccomp.img").exists():
        return []
    found = []
    for entry in messages(images / "seccomp.img"):
        for number, raw in fields(entry):
            if number == 1 and isinstance(raw, bytes):
                below = numbers(raw, 2)
                flags = numbers(raw, 3)
                found.append(Filter(child(raw, 1) or b"", below[-1] if below else None, flags[-1] if flags else 0))
    return found
