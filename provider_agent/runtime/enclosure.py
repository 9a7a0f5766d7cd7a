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
# task_kobj_ids_entry; user and cgroup namespaces are the host's, as runc has it without remapping on cgroup v1.
NAMESPACES = {5: "pid", 6: "network", 7: "ipc", 8: "uts", 9: "mount"}
READ_ONLY, OVERLAY, EXTERNAL_KEY = 1, 17, 18
PROC, SYSFS, CGROUPS = 1, 2, (12, 23)
OWN_MOUNTS = {PROC: "proc", SYSFS: "sysfs", 5: "tmpfs", 6: "devpts", 14: "mqueue"}
# Docker's defaults: runc binds these read-only over themselves, or hides them.
READ_ONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
HIDDEN_PATHS = ("/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware")
# fdinfo.proto: regular, pipe, fifo, inet and unix sockets, eventfd, epoll, inotify, signalfd, tty, netlink, timerfd,
# memfd, pidfd. Not: packet sockets, fanotify, namespaces, tun, external, bpf, autofs.
FILE_KINDS = frozenset({1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 13, 17, 18, 20})
REGULAR, REGULAR_NAME, REGULAR_EXTERNAL = 3, 6, 9
Mount = Mapping[int, int | bytes]


def namespaces(images: Path, processes: list[int]) -> str | None:
    """Why the tasks would not all live in one set of namespaces of their own, or None. Raises ValueError, OSError."""
    inventory = _inventory(images / "inventory.img")
    root = child(inventory, 3)
    if numbers(inventory, 1) != [IMAGES_V1_1] or root is None:
        return "its inventory is of another version"
    first: dict[int, list[int]] = {}
    for pid in processes:
        listed = list(messages(images / f"ids-{pid}.img"))
        if len(listed) != 1:
            return f"task {pid} does not say which namespaces are its own"
        for number, name in NAMESPACES.items():
            own, hosts = numbers(listed[0], number), numbers(root, number)
            if len(own) != 1 or len(hosts) != 1 or own == hosts or first.setdefault(number, own) != own:
                return f"task {pid} has no {name} namespace of this job's own"
    return None


def mounts(images: Path, host: Path = Path("/")) -> str | None:
    """Why the mounts are not those that Docker gives a job, or None; what of ``host`` is to be hidden must be."""
    tables = list(images.glob("mountpoints-*.img"))
    if len(tables) != 1:
        return "it has no mount points" if not tables else "it has more than one mount namespace"
    table: list[Mount] = [dict(fields(entry)) for entry in messages(tables[0])]
    for mount in table:
        reason = _mount(mount)
        if reason:
            return reason
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


def _mount(mount: Mount) -> str | None:
    kind, root, place, flags = mount.get(1), mount.get(6), mount.get(7), mount.get(5)
    external = isinstance(mount.get(EXTERNAL_KEY), bytes)
    if not isinstance(flags, int) or not isinstance(place, bytes) or b".." in place.split(b"/"):
        return f"it has a mount at {place!r} without flags"[:200]
    if not (external or (kind == OVERLAY and place == b"/") or kind in OWN_MOUNTS):
        return f"it mounts a file system of kind {kind!r} at {place!r}"[:200]
    if kind in CGROUPS and not external:
        return "it mounts cgroups of its own"
    whole_proc = kind == PROC and root == b"/" and place == b"/proc"
    if kind in (PROC, SYSFS, *CGROUPS) and not whole_proc and not flags & READ_ONLY:
        return f"it mounts {place!r} for writing"[:200]
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
