"""The parts of the container runtime that need no container: names, wrapper, filters, archives, images."""

import io
import ipaddress
import json
import struct
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provider_agent import guard
from provider_agent.runtime import archives, everlease_runc, network, oci, seccomp, wire_images
from provider_agent.runtime.capability import refusal
from provider_agent.runtime.errors import CheckpointRefused, ContainerFault

ID = "ab" * 32


@given(st.text("0123456789abcdef", min_size=64, max_size=64))
def test_identity_is_a_function_of_the_job_and_fits_the_pool(job: str) -> None:
    found = network.identity(f"0x{job}")
    assert found == network.identity(f"0x{job.upper()}".replace("0X", "0x"))
    subnet = ipaddress.IPv4Network(found.subnet)
    assert subnet.subnet_of(network.POOL)
    assert ipaddress.IPv4Address(found.address) in subnet
    assert found.gateway != found.address
    assert len(found.bridge) <= 15


def settings(tmp_path: Path) -> dict[str, str]:
    return {"runc": "/sbin/runc", "criu": "/opt/criu", "state": str(tmp_path)}


def bundle(tmp_path: Path, seccomp_default: str | None = "SCMP_ACT_ERRNO") -> Path:
    folder = tmp_path / "bundle"
    folder.mkdir()
    rules = {
        "defaultAction": seccomp_default,
        "syscalls": [{"names": ["read", "io_uring_setup"]}, {"names": ["io_uring_enter"]}],
    }
    linux = {"seccomp": rules} if seccomp_default else {}
    (folder / "config.json").write_text(json.dumps({"linux": linux}))
    return folder


def test_create_passes_on_and_hardens(tmp_path: Path) -> None:
    folder = oci.prepare(tmp_path, ID, (), "100.64.0.2")
    where = bundle(tmp_path)
    argv = ["--root", "/r", "--systemd-cgroup", "create", "--bundle", str(where), "--pid-file", "/p", ID]
    options, rest = everlease_runc.split_options(argv, everlease_runc.GLOBAL_VALUES)
    create_options, names = everlease_runc.split_options(rest[1:], everlease_runc.CREATE_VALUES)
    assert everlease_runc.create(settings(tmp_path), options, create_options, names[0]) == ["/sbin/runc", *argv]
    config = json.loads((where / "config.json").read_text())
    assert config["linux"]["seccomp"]["syscalls"] == [{"names": ["read"]}]
    assert config["annotations"]["org.criu.config"] == str(folder / "criu.conf")
    noted = oci.read_bundle(tmp_path, ID)
    assert (noted.root, noted.systemd_cgroup) == (Path("/r"), True)


def test_a_marked_container_is_restored_exactly_once(tmp_path: Path) -> None:
    oci.prepare(tmp_path, ID, (), "100.64.0.2")
    oci.mark_restore(tmp_path, ID, images=tmp_path / "i", work=tmp_path / "w")
    where = bundle(tmp_path)
    create_options: everlease_runc.Options = [
        ("--bundle", str(where)),
        ("--pid-file", "/p"),
        ("--console-socket", "/c"),
    ]
    first = everlease_runc.create(settings(tmp_path), [("--root", "/r")], create_options, ID)
    assert first[first.index("restore") :][1:3] == ["--detach", "--tcp-established"]
    assert "--console-socket" in first
    assert everlease_runc.started_by_restore(settings(tmp_path), ID)
    assert not everlease_runc.started_by_restore(settings(tmp_path), ID)
    assert "restore" not in everlease_runc.create(settings(tmp_path), [("--root", "/r")], create_options, ID)


def test_a_daemon_without_seccomp_runs_no_job(tmp_path: Path) -> None:
    where = bundle(tmp_path, None)
    with pytest.raises(SystemExit, match="seccomp"):
        everlease_runc.create(settings(tmp_path), [], [("--bundle", str(where))], ID)


def test_a_container_id_is_never_a_path(tmp_path: Path) -> None:
    with pytest.raises(ContainerFault):
        oci.container_folder(tmp_path, "../../etc")


def program(*code: tuple[int, int, int, int]) -> bytes:
    return b"".join(struct.pack("<HBBI", *line) for line in code)


def test_filters_are_run_as_the_kernel_does() -> None:
    allow = program((0x06, 0, 0, seccomp.ALLOW))
    deny_io_uring = program(
        (0x20, 0, 0, 0), (0x35, 0, 2, 425), (0x25, 1, 0, 427), (0x06, 0, 0, 0x00050001), (0x06, 0, 0, seccomp.ALLOW)
    )
    assert "io_uring_setup" in seccomp.allowed([allow])
    assert len(seccomp.allowed([])) == len(seccomp.DENIED)
    passed = seccomp.allowed([allow, deny_io_uring])
    assert not {"io_uring_setup", "io_uring_enter", "io_uring_register"} & set(passed)
    assert "mount" in passed


@given(st.binary(max_size=200))
def test_hostile_filters_and_messages_end_with_value_error(raw: bytes) -> None:
    for read in (lambda: seccomp.run_filter(raw, bytes(64)), lambda: list(wire_images.fields(raw))):
        try:
            read()
        except ValueError:
            continue


@pytest.mark.parametrize(
    ("name", "kind", "link"),
    [
        ("../x", tarfile.REGTYPE, ""),
        ("/x", tarfile.REGTYPE, ""),
        ("d", tarfile.BLKTYPE, ""),
        ("h", tarfile.LNKTYPE, "../../x"),
    ],
)
def test_archives_that_reach_outside_are_refused(tmp_path: Path, name: str, kind: bytes, link: str) -> None:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, link
    with tarfile.open(tmp_path / "t.tar", "w") as archive:
        archive.addfile(member)
    with pytest.raises(CheckpointRefused):
        archives.check(tmp_path / "t.tar")


def test_a_member_behind_a_link_is_refused_and_whiteouts_pass(tmp_path: Path) -> None:
    link, behind, whiteout = tarfile.TarInfo("l"), tarfile.TarInfo("l/x"), tarfile.TarInfo("gone")
    link.type, link.linkname, whiteout.type = tarfile.SYMTYPE, "/etc", tarfile.CHRTYPE
    for members, refused in (((whiteout, link), False), ((link, behind), True)):
        with tarfile.open(tmp_path / "t.tar", "w") as archive:
            for member in members:
                archive.addfile(member, io.BytesIO())
        if refused:
            with pytest.raises(CheckpointRefused, match="behind a link"):
                archives.check(tmp_path / "t.tar")
        else:
            archives.check(tmp_path / "t.tar")


def test_a_host_without_criu_offers_files_mode() -> None:
    assert refusal("4.2.1", "6.18.44", "overlay2", True) == ""
    old_criu, old_kernel = ("3.17", "6.1", "overlay2", True), ("4.2", "4.19", "overlay2", True)
    for bad in (("", "6.1", "overlay2", True), old_criu, old_kernel, ("4.2", "6.1", "vfs", True)):
        assert "files mode" in refusal(*bad)


def test_the_lease_file_and_the_cgroup_of_a_task(tmp_path: Path) -> None:
    assert guard.read_lease(tmp_path) == 0.0
    guard.write_lease(tmp_path, 1234.5)
    assert guard.read_lease(tmp_path) == 1234.5
    (tmp_path / "lease").write_text("00000000001234.500000\n00000000009234.500000\n")
    assert guard.read_lease(tmp_path) == 0.0
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "cgroup").write_text("5:freezer:/docker/x\n0::/y\n")
    found = guard.freezer_of(7, proc=tmp_path, mounts=tmp_path / "cg")
    assert (found.version, found.path) == (1, tmp_path / "cg/freezer/docker/x")
    (tmp_path / "7" / "cgroup").write_text("0::/system.slice/docker-x.scope\n")
    found = guard.freezer_of(7, proc=tmp_path, mounts=tmp_path / "cg")
    assert (found.version, found.path) == (2, tmp_path / "cg/system.slice/docker-x.scope")
