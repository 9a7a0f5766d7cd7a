"""The walls of a job as CRIU's images describe them: namespaces, mounts, open files.

CRIU rebuilds all three from the images and not from the bundle, so a hostile host could leave walls out: tasks in this
host's own namespaces, /proc/sys writable, cgroups writable. Message numbers: CRIU 4.2's images/*.proto.
"""

import struct
from collections.abc import Iterator, Mapping
from pathlib import Path

from provider_agent.runtime.wire_images import child, fields, messages, numbers

INVENTORY_MAGIC, IMAGES_V1_1 = 0x58313116, 2
MAX_INVENTORY = 1 << 20
# task_kobj_ids_entry; the user namespace is the host's, as runc has it without remapping, and so is that of cgroups on
# cgroup v1.
NAMESPACES = {5: "pid", 6: "network", 7: "ipc", 8: "uts", 9: "mount"}
CGROUP_NAMESPACE = {11: "cgroup"}
READ_ONLY, OVERLAY, EXTERNAL_KEY = 1, 17, 18
PROC, SYSFS, CGROUP, CGROUP2 = 1, 2, 12, 23
# cgroup v2's mount options: of the whole hierarchy, and without effect from a namespace (cgroups(7), "nsdelegate").
CGROUP2_OPTIONS = {"nsdelegate", "favordynmods", "memory_localevents", "memory_recursiveprot", "pids_localevents"}
CGROUP2_OPTIONS |= {"memory_hugetlb_accounting"}
OWN_MOUNTS = {PROC: "proc", SYSFS: "sysfs", 5: "tmpfs", 6: "devpts", 14: "mqueue"}
# Docker's defaults: runc binds these read-only over themselves, or hides them.
READ_ONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
HIDDEN_PATHS = ("/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware")
# fdinfo.proto: regular, pipe, fifo, inet and unix sockets, eventfd, epoll, inotify, signalfd, tty, netlink, timerfd,
# memfd, pidfd. Not: packet sockets, fanotify, namespaces, tun, external, bpf, autofs.
FILE_KINDS = frozenset({1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 13, 17, 18, 20})
REGULAR, REGULAR_NAME, REGULAR_EXTERNAL = 3, 6, 9
# What of /dev is bound from outside; the null device is one of the container's own (everlease_runc.restore_options).
TAKEN_OVER = {b"/dev/null", b"/dev/shm", b"/dev/mqueue"}
Mount = Mapping[int, int | bytes]


def namespaces(images: Path, processes: list[int], cgroup: str) -> str | None:
    """Why the tasks would not all live in one set of namespaces of their own, or None; `cgroup` is this host's
    version, "v1" or "v2". Raises ValueError, OSError.
    """
    wanted = NAMESPACES | (CGROUP_NAMESPACE if cgroup == "v2" else {})
    inventory = _inventory(images / "inventory.img")
    root = child(inventory, 3)
    if numbers(inventory, 1) != [IMAGES_V1_1] or root is None:
        return "its inventory is of another version"
    first: dict[int, list[int]] = {}
    for pid in processes:
        listed = list(messages(images / f"ids-{pid}.img"))
        if len(listed) != 1:
            return f"task {pid} does not say which namespaces are its own"
        for number, name in wanted.items():
            own, hosts = numbers(listed[0], number), numbers(root, number)
            if len(own) != 1 or len(hosts) != 1 or own == hosts or first.setdefault(number, own) != own:
                return f"task {pid} has no {name} namespace of this job's own"
    return None


def mounts(images: Path, cgroup: str, host: Path = Path("/")) -> str | None:
    """Why the mounts are not those that Docker gives a job, or None; what of ``host`` is to be hidden must be."""
    tables = list(images.glob("mountpoints-*.img"))
    if len(tables) != 1:
        return "it has no mount points" if not tables else "it has more than one mount namespace"
    table: list[Mount] = [dict(fields(entry)) for entry in messages(tables[0])]
    for mount in table:
        reason = _mount(mount, cgroup)
        if reason:
            return reason
    if cgroup == "v2" and sum(mount.get(1) == CGROUP2 for mount in table) != 1:
        return "it has not exactly one mount of its cgroup"
    if len({mount.get(2) for mount in table}) != len(table):
        return "two of its mounts have one id"
    return _covered(table, host)


def files(images: Path) -> str | None:
    """Why an open file is one that a job can't have, or None."""
    for entry in messages(images / "files.img"):
        kinds = numbers(entry, 1)
        if len(kinds) != 1 or kinds[0] not in FILE_KINDS:
            return f"it opens a file of kind {kinds[:2]}"
        regular = child(entry, REGULAR)
        if regular is None:
            continue
        (name,) = (value for number, value in fields(regular) if number == REGULAR_NAME)
        if not isinstance(name, bytes) or b".." in name.split(b"/"):
            return f"it opens {name!r}"[:200]
        if any(numbers(regular, REGULAR_EXTERNAL)):
            return f"it takes {name!r} over from the host"[:200]
    return None


def _inventory(path: Path) -> bytes:
    """The one message of inventory.img, which has one magic number where the other images have two."""
    with path.open("rb") as file:
        raw = file.read(MAX_INVENTORY)
    magic, size = struct.unpack_from("<II", raw)
    if magic != INVENTORY_MAGIC or len(raw) != 8 + size:
        raise ValueError("inventory.img is no inventory")
    return raw[8:]


def _mount(mount: Mount, cgroup: str) -> str | None:
    kind, root, place, flags = mount.get(1), mount.get(6), mount.get(7), mount.get(5)
    external = isinstance(mount.get(EXTERNAL_KEY), bytes)
    if not isinstance(flags, int) or not isinstance(place, bytes) or b".." in place.split(b"/"):
        return f"it has a mount at {place!r} without flags"[:200]
    key = mount.get(EXTERNAL_KEY)
    if isinstance(key, bytes) and key.startswith(b"/dev/") and key not in TAKEN_OVER:
        return f"it takes {key!r} over from the host"[:200]
    if kind in (CGROUP, CGROUP2):
        reason = _private_cgroup(mount) if cgroup == "v2" else None if external else "it mounts cgroups of its own"
        if reason:
            return reason
    elif not (external or (kind == OVERLAY and place == b"/") or kind in OWN_MOUNTS):
        return f"it mounts a file system of kind {kind!r} at {place!r}"[:200]
    whole_proc = kind == PROC and root == b"/" and place == b"/proc"
    if kind in (PROC, SYSFS, CGROUP, CGROUP2) and not whole_proc and not flags & READ_ONLY:
        return f"it mounts {place!r} for writing"[:200]
    return None


def _private_cgroup(mount: Mount) -> str | None:
    """On cgroup v2 a job sees one mount: the root of its own namespace, which the kernel mounts for whoever is in it.

    CRIU mounts it anew in the namespace that criu_shim.py made, so nothing of it comes from the host; an external one
    would be bound from the host's tree.
    """
    options = mount.get(9, b"")
    known = isinstance(options, bytes) and set(options.decode().split(",")) <= CGROUP2_OPTIONS | {""}
    right = mount.get(1) == CGROUP2 and mount.get(6) == b"/" and mount.get(7) == b"/sys/fs/cgroup"
    if not right or not known or EXTERNAL_KEY in mount:
        return f"it mounts other cgroups than its own at {mount.get(7)!r}"[:200]
    return None


def _covered(table: list[Mount], host: Path) -> str | None:
    """One root, one /proc, and over it what Docker puts there."""
    for kind, place in ((OVERLAY, b"/"), (PROC, b"/proc")):
        if sum(mount.get(1) == kind and mount.get(7) == place for mount in table) != 1:
            return f"it has not exactly one mount at {place.decode()}"
    (proc,) = (mount for mount in table if mount.get(1) == PROC and mount.get(7) == b"/proc")
    over_proc = {mount.get(7) for mount in table if mount.get(4) == proc.get(2)}
    placed = {mount.get(7) for mount in table}
    for path in _on(host, READ_ONLY_PATHS):
        if path.encode() not in over_proc:
            return f"it leaves {path} writable"
    for path in _on(host, HIDDEN_PATHS):
        if path.encode() not in placed:
            return f"it shows {path}"
    return None


def _on(host: Path, paths: tuple[str, ...]) -> Iterator[str]:
    return (path for path in paths if (host / path.lstrip("/")).exists())
