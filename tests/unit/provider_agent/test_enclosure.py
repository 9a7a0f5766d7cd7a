"""Images whose walls have a hole, as a hostile host would write them."""

import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from provider_agent.runtime import enclosure

COMMON = bytes.fromhex("19435654")
RO = 1
HOST_IDS = {1: 1, 2: 1, 3: 1, 4: 1, 5: 1, 6: 2, 7: 3, 8: 4, 9: 6, 10: 7, 11: 8, 12: 5}
JOB_IDS = {**HOST_IDS, 5: 9, 6: 10, 7: 11, 8: 12, 9: 13, 11: 14}
NAMESPACES = {**enclosure.NAMESPACES, **enclosure.CGROUP_NAMESPACE}
Value = int | bytes


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def message(values: dict[int, Value]) -> bytes:
    out = b""
    for number, value in values.items():
        if isinstance(value, int):
            out += varint(number << 3) + varint(value)
        else:
            out += varint(number << 3 | 2) + varint(len(value)) + value
    return out


def write(path: Path, *entries: dict[int, Value]) -> None:
    body = b"".join(struct.pack("<I", len(raw)) + raw for raw in map(message, entries))
    path.write_bytes(COMMON + b"\0\0\0\0" + body)


def inventory(folder: Path, root: dict[int, int], version: int = 2) -> None:
    raw = message({1: version, 3: message(dict(root))})
    (folder / "inventory.img").write_bytes(struct.pack("<II", enclosure.INVENTORY_MAGIC, len(raw)) + raw)


def mount(id_: int, kind: int, place: str, flags: int = 0, *, parent: int = 1, root: str = "/") -> dict[int, Value]:
    return {1: kind, 2: id_, 4: parent, 5: flags, 6: root.encode(), 7: place.encode()}


def walls() -> list[dict[int, Value]]:
    """What Docker gives: the root, /proc and its read-only parts, hidden files, /sys, /dev, a volume, cgroups."""
    bound = [mount(10 + n, 1, path, RO, parent=2, root=path[5:]) for n, path in enumerate(enclosure.READ_ONLY_PATHS)]
    hidden = [mount(20 + n, 5, path, RO, parent=2) for n, path in enumerate(enclosure.HIDDEN_PATHS)]
    mine = {**mount(5, 0, "/checkpoint"), 18: b"/checkpoint"}
    groups = {**mount(6, 12, "/sys/fs/cgroup/pids", RO, parent=3), 18: b"/sys/fs/cgroup/pids"}
    return [
        mount(1, 17, "/"),
        mount(2, 1, "/proc"),
        mount(3, 2, "/sys", RO),
        mount(4, 5, "/dev"),
        mine,
        groups,
        *bound,
        *hidden,
    ]


@pytest.fixture
def host(tmp_path: Path) -> Path:
    root = tmp_path / "host"
    for path in (*enclosure.READ_ONLY_PATHS, *enclosure.HIDDEN_PATHS):
        (root / path[1:]).mkdir(parents=True)
    return root


def without(place: str) -> Callable[[list[dict[int, Value]]], list[dict[int, Value]]]:
    return lambda table: [entry for entry in table if entry[7] != place.encode()]


def writable(place: str) -> Callable[[list[dict[int, Value]]], list[dict[int, Value]]]:
    return lambda table: [{**entry, 5: 0} if entry[7] == place.encode() else entry for entry in table]


def with_(*more: dict[int, Value]) -> Callable[[list[dict[int, Value]]], list[dict[int, Value]]]:
    return lambda table: [*table, *more]


HOLES = {
    "no /proc/sys": (without("/proc/sys"), "leaves /proc/sys writable"),
    "/proc/sys for writing": (writable("/proc/sys"), "for writing"),
    "/sys for writing": (writable("/sys"), "for writing"),
    "cgroups for writing": (writable("/sys/fs/cgroup/pids"), "for writing"),
    "a second /proc over the first": (with_(mount(40, 1, "/proc", parent=2)), "not exactly one mount at /proc"),
    "/proc elsewhere": (with_(mount(40, 1, "/mnt")), "for writing"),
    "the host's root by another name": (with_(mount(40, 17, "/host")), "kind 17"),
    "a disk": (with_(mount(40, 0, "/mnt")), "kind 0"),
    "out of the root": (with_(mount(40, 5, "/dev/../../etc", RO)), "without flags"),
    "/proc/keys shown": (without("/proc/keys"), "shows /proc/keys"),
    "a device node of the host": (with_({**mount(40, 0, "/mnt"), 18: b"/dev/zero"}), "takes"),
    "one id twice": (with_(mount(2, 5, "/tmp")), "one id"),
    "covered under another parent": (
        lambda table: [{**entry, 4: 1} if entry[7] == b"/proc/sys" else entry for entry in table],
        "leaves /proc/sys writable",
    ),
}


def test_the_walls_that_docker_builds_are_accepted(tmp_path: Path, host: Path) -> None:
    write(tmp_path / "mountpoints-13.img", *walls())
    assert enclosure.mounts(tmp_path, "v1", host) is None


@pytest.mark.parametrize("hole", HOLES)
def test_a_hole_in_the_walls_is_refused(tmp_path: Path, host: Path, hole: str) -> None:
    spoil, reason = HOLES[hole]
    write(tmp_path / "mountpoints-13.img", *spoil(walls()))
    assert reason in (enclosure.mounts(tmp_path, "v1", host) or "")


def test_a_second_mount_namespace_is_refused(tmp_path: Path, host: Path) -> None:
    write(tmp_path / "mountpoints-13.img", *walls())
    write(tmp_path / "mountpoints-14.img", *walls())
    assert "more than one" in (enclosure.mounts(tmp_path, "v1", host) or "")


def test_a_private_cgroup_namespace_shows_its_own_cgroup_alone(tmp_path: Path, host: Path) -> None:
    """On cgroup v2: one mount, read only, of the namespace's root, at its usual place, not taken over from the host."""
    own: dict[int, Value] = {
        **mount(6, 23, "/sys/fs/cgroup", RO, parent=3),
        9: b"nsdelegate,memory_recursiveprot",
    }
    rest = without("/sys/fs/cgroup/pids")(walls())
    write(tmp_path / "mountpoints-13.img", *rest, own)
    assert enclosure.mounts(tmp_path, "v2", host) is None
    assert "cgroups of its own" in (enclosure.mounts(tmp_path, "v1", host) or "")
    for spoilt in (
        [],
        [own, {**own, 2: 40}],
        [own, {**own, 2: 40, 7: b"/mnt"}],
        [{**own, 5: 0}],
        [{**own, 6: b"/.."}],
        [{**own, 6: b"/system.slice"}],
        [{**own, 7: b"/mnt"}],
        [{**own, 9: b"none,name=x"}],
        [{**own, 18: b"/sys/fs/cgroup"}],
        [{**own, 1: 12}],
        [own, {**mount(40, 12, "/sys/fs/cgroup/pids", RO), 18: b"/sys/fs/cgroup/pids"}],
    ):
        write(tmp_path / "mountpoints-13.img", *rest, *spoilt)
        assert "cgroup" in (enclosure.mounts(tmp_path, "v2", host) or ""), spoilt


def test_a_hidden_path_that_this_kernel_lacks_is_not_asked_for(tmp_path: Path, host: Path) -> None:
    (host / "proc/kcore").rmdir()
    write(tmp_path / "mountpoints-13.img", *without("/proc/kcore")(walls()))
    assert enclosure.mounts(tmp_path, "v1", host) is None


@pytest.mark.parametrize("number", NAMESPACES)
def test_no_task_shares_a_namespace_with_the_host(tmp_path: Path, number: int) -> None:
    inventory(tmp_path, HOST_IDS)
    write(tmp_path / "ids-1.img", dict(JOB_IDS))
    write(tmp_path / "ids-7.img", dict(JOB_IDS))
    assert enclosure.namespaces(tmp_path, [1, 7], "v2") is None
    write(tmp_path / "ids-7.img", {**JOB_IDS, number: HOST_IDS[number]})
    assert NAMESPACES[number] in (enclosure.namespaces(tmp_path, [1, 7], "v2") or "")
    write(tmp_path / "ids-7.img", {**JOB_IDS, number: 77})
    assert "task 7" in (enclosure.namespaces(tmp_path, [1, 7], "v2") or "")
    write(tmp_path / "ids-7.img", {key: value for key, value in JOB_IDS.items() if key != number})
    assert "task 7" in (enclosure.namespaces(tmp_path, [1, 7], "v2") or "")


def test_the_cgroup_namespace_is_the_hosts_on_cgroup_v1(tmp_path: Path) -> None:
    inventory(tmp_path, HOST_IDS)
    write(tmp_path / "ids-1.img", {**JOB_IDS, 11: HOST_IDS[11]})
    assert enclosure.namespaces(tmp_path, [1], "v1") is None
    assert "cgroup namespace" in (enclosure.namespaces(tmp_path, [1], "v2") or "")


def test_images_of_an_older_form_are_refused(tmp_path: Path) -> None:
    """CRIU would read them at another offset than the audit does."""
    inventory(tmp_path, HOST_IDS, version=1)
    assert "version" in (enclosure.namespaces(tmp_path, [], "v1") or "")
    (tmp_path / "files.img").write_bytes(b"\0" * 16)
    with pytest.raises(ValueError, match="magic"):
        enclosure.files(tmp_path)


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ({1: 10}, "kind"),
        ({1: 16}, "kind"),
        ({1: 1, 3: message({6: b"/work/../../etc/shadow"})}, "shadow"),
        ({1: 1, 3: message({6: b"/etc/shadow", 9: 1})}, "takes"),
    ],
)
def test_open_files_of_the_host_are_refused(tmp_path: Path, entry: dict[int, Value], reason: str) -> None:
    write(tmp_path / "files.img", {1: 1, 3: message({6: b"/work/data"})}, {1: 2})
    assert enclosure.files(tmp_path) is None
    write(tmp_path / "files.img", entry)
    assert reason in (enclosure.files(tmp_path) or "")
