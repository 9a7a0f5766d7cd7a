"""The root file system of a container below its overlay: found, unmounted, filled with a checkpoint's files, mounted
again as it was.

Part of the runtime everlease-runc and of its copy (versions.py): the standard library alone.
"""

import ctypes
import os
import re
import subprocess
import time
from typing import Any, NamedTuple

MOUNTINFO = "/proc/self/mountinfo"
MOUNT_FLAGS = {"ro": 1, "nosuid": 2, "nodev": 4, "noexec": 8, "noatime": 1024, "nodiratime": 2048, "relatime": 1 << 21}
MOUNT_DATA_BYTES = 4095
UNPACK_S, UNMOUNT_S = 540.0, 5.0
CLONE_NEWNS, MS_REC, MS_SLAVE, MNT_DETACH = 0x20000, 1 << 14, 1 << 19, 2
UNPACK = ["tar", "--extract", "--numeric-owner", "--same-owner", "--same-permissions", "--acls", "--xattrs"]
UNPACK += ["--xattrs-include=*", "--delay-directory-restore"]


class Refused(Exception):
    """A container is not created; one sentence."""


class Overlay(NamedTuple):
    """A mounted overlay: its mount point, mount(2)'s source, flags and (name, value) options as the kernel lists
    them, the writable layer, and the folder that relative layers start from (None where all are absolute).
    """

    place: str
    source: str
    flags: int
    options: list[tuple[str, str | None]]
    upper: str
    base: str | None


def unescape(text: str) -> str:
    """A path of /proc/self/mountinfo, where blanks, commas and backslashes are octal (proc(5))."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)


def find_overlay(rootfs: str, mountinfo: str = MOUNTINFO) -> Overlay:
    """The overlay that is mounted at a container's root file system, whichever image store made it. Raises Refused."""
    place, found = os.path.realpath(rootfs), None
    with open(mountinfo, encoding="utf-8", errors="surrogateescape") as lines:
        for line in lines:
            words = line.rstrip("\n").split(" ")
            if unescape(words[4]) == place:
                found = words
    kind = found[found.index("-") + 1] if found else "no mount"
    if found is None or kind != "overlay":
        raise Refused(f"the container's root file system is {kind}, and jobs need an overlay")
    source, data = found[found.index("-") + 2 :]
    options: list[tuple[str, str | None]] = []
    for word in data.split(","):
        name, equals, value = word.partition("=")
        options.append((name, unescape(value) if equals else None))
    given = {name: value for name, value in options if value is not None}
    upper, lowers = given.get("upperdir", ""), [value or "" for name, value in options if name.startswith("lowerdir")]
    if not upper or not lowers or any(set(value) & set(",\\\n") for value in (*lowers, upper)):
        raise Refused(f"the layers of {place} can't be told from its mount options")
    flags = sum(MOUNT_FLAGS.get(word, 0) for word in found[5].split(","))
    layers = [upper, *":".join(lowers).split(":")]
    base = layers_base(place, layers)
    return Overlay(place, unescape(source), flags, options, os.path.join(base or "", upper), base)


def layers_base(place: str, layers: list[str]) -> str | None:
    """The folder that relative layers start from, None where all are absolute.

    Docker's overlay2 mounts from its own folder, place/../.., and containerd from that of its snapshots, the writable
    layer's grandparent, once the options are longer than a page. Raises Refused.
    """
    relative = [layer for layer in layers if not os.path.isabs(layer)]
    if not relative:
        return None
    for start in (layers[0], place):
        base = os.path.dirname(os.path.dirname(start))
        if os.path.isabs(start) and all(os.path.isdir(os.path.join(base, layer)) for layer in relative):
            return base
    raise Refused(f"the layers of {place} are not where Docker or containerd keeps them")


def mount_again(overlay: Overlay) -> None:
    """Mount an overlay as it was. Raises Refused."""
    joined: dict[str, str | None] = {}
    for name, value in overlay.options:
        if name in {"rw", "ro", "seclabel"}:
            continue
        key = name.removesuffix("+")  # a layer a time, as the new mount API has it
        joined[key] = f"{joined[key]}:{value}" if key in joined else value
    data = ",".join(name if value is None else f"{name}={value}" for name, value in joined.items())
    raw = os.fsencode(data)
    if len(raw) > MOUNT_DATA_BYTES:
        raise Refused(f"{overlay.place} can't be mounted again: its options take {len(raw)} bytes")
    libc = ctypes.CDLL(None, use_errno=True)
    here = os.open(".", os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.chdir(overlay.base or "/")
        place = os.fsencode(overlay.place)
        if libc.mount(os.fsencode(overlay.source), place, b"overlay", ctypes.c_ulong(overlay.flags), raw):
            raise Refused(f"{overlay.place} can't be mounted again: {os.strerror(ctypes.get_errno())}")
    finally:
        os.fchdir(here)
        os.close(here)


def unmount(place: str) -> None:
    """Unmount, and wait for whoever is just looking into it. Raises Refused."""
    libc = ctypes.CDLL(None, use_errno=True)
    give_up = time.monotonic() + UNMOUNT_S
    while libc.umount2(os.fsencode(place), 0):
        if time.monotonic() > give_up:
            raise Refused(f"{place} can't be unmounted: {os.strerror(ctypes.get_errno())}")
        time.sleep(0.05)


def put_back(overlay: Overlay, archive: str) -> None:
    """Replace the writable layer's content by the archive's, which the agent has checked (archives.check).

    A layer must not change below a live overlay, so it is unmounted meanwhile. Raises Refused.
    """
    unmount(overlay.place)
    try:
        work(["find", overlay.upper, "-mindepth", "1", "-delete"], "the writable layer can't be emptied")
        argv = [*UNPACK, "--file", archive, "--directory", overlay.upper]
        work(argv, "the checkpoint's files can't be put back")
    finally:
        mount_again(overlay)


def work(argv: list[str], failure: str) -> None:
    """Run to the end without touching our own stdio. Raises Refused."""
    quiet: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    try:
        done = subprocess.run(argv, **quiet, timeout=UNPACK_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Refused(f"{failure}: {error}") from error
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines() or ["no message"]
        raise Refused(f"{failure}: {next((line for line in said if 'No space' in line), said[-1])[-300:]}")


def hide_cgroups(below: str, mountinfo: str = MOUNTINFO) -> None:
    """Leave the cgroup hierarchies that are mounted below a folder out of what this process, soon runc, sees.

    On cgroup v1 runc binds each hierarchy that it sees into the container, and no other host has the keeper's. The rest
    of the system keeps its mounts. Raises Refused.
    """
    with open(mountinfo, encoding="utf-8", errors="surrogateescape") as lines:
        mounts = [words for words in (line.split() for line in lines) if words[words.index("-") + 1] == "cgroup"]
    places = [unescape(words[4]) for words in mounts if unescape(words[4]).startswith(f"{below}/")]
    if not places:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    done = libc.unshare(CLONE_NEWNS) or libc.mount(None, b"/", None, ctypes.c_ulong(MS_REC | MS_SLAVE), None)
    if done or any(libc.umount2(os.fsencode(place), MNT_DETACH) for place in places):
        raise Refused(f"{places[0]} can't be hidden from the container: {os.strerror(ctypes.get_errno())}")
