"""The parts of the container runtime that need no container: names, wrapper, filters, archives, images."""

import io
import ipaddress
import json
import os
import shutil
import struct
import subprocess
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provider_agent import guard
from provider_agent.runtime import archives, diagnosis, everlease_runc, network, oci, rootfs, seccomp, wire_images
from provider_agent.runtime.capability import refusal, secured, unsupported
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
    return {"runc": "/sbin/runc", "criu": "/opt/criu", "shim": "/shim/criu", "state": str(tmp_path)}


def mounted(tmp_path: Path) -> str:
    """A mount table with an overlay at the bundle's root file system."""
    place, table = (tmp_path / "bundle" / "rootfs").resolve(), tmp_path / "mountinfo"
    layers = "rw,lowerdir=/l/A:/l/B,upperdir=/l/C/diff,workdir=/l/C/work"
    table.write_text(
        f"1 0 8:1 / / rw - ext4 /dev/x rw\n2 1 0:9 / {place} rw,relatime shared:7 - overlay overlay {layers}\n"
    )
    return str(table)


def bundle(tmp_path: Path, seccomp_default: str | None = "SCMP_ACT_ERRNO") -> Path:
    folder = tmp_path / "bundle"
    folder.mkdir()
    rules = {
        "defaultAction": seccomp_default,
        "syscalls": [{"names": ["read", "io_uring_setup"]}, {"names": ["io_uring_enter"]}],
    }
    linux = {"seccomp": rules} if seccomp_default else {}
    (folder / "config.json").write_text(json.dumps({"linux": linux, "root": {"path": "rootfs"}}))
    return folder


def test_create_passes_on_and_hardens(tmp_path: Path) -> None:
    folder = oci.prepare(tmp_path, ID, (), "100.64.0.2")
    where = bundle(tmp_path)
    argv = ["--root", "/r", "--systemd-cgroup", "create", "--bundle", str(where), "--pid-file", "/p", ID]
    options, rest = everlease_runc.split_options(argv, everlease_runc.GLOBAL_VALUES)
    create_options, names = everlease_runc.split_options(rest[1:], everlease_runc.CREATE_VALUES)
    oci.permit_start(tmp_path, ID)
    ran = everlease_runc.create(settings(tmp_path), options, create_options, names[0], mounted(tmp_path))
    assert ran == ["/sbin/runc", *argv]
    assert oci.captures_of(tmp_path, ID)[0] == oci.Capture("upper", Path("/l/C/diff"))
    config = json.loads((where / "config.json").read_text())
    assert config["linux"]["seccomp"]["syscalls"] == [{"names": ["read"]}]
    assert config["annotations"]["org.criu.config"] == str(folder / "criu.conf")
    noted = oci.read_bundle(tmp_path, ID)
    assert (noted.root, noted.systemd_cgroup) == (Path("/r"), True)


def test_a_marked_container_is_restored_exactly_once(tmp_path: Path) -> None:
    oci.prepare(tmp_path, ID, (), "100.64.0.2")
    oci.mark_restore(tmp_path, ID, images=tmp_path / "i", work=tmp_path / "w", upper=None)
    where = bundle(tmp_path)
    create_options: everlease_runc.Options = [
        ("--bundle", str(where)),
        ("--pid-file", "/p"),
        ("--console-socket", "/c"),
    ]
    table = mounted(tmp_path)
    oci.permit_start(tmp_path, ID)
    first = everlease_runc.create(settings(tmp_path), [("--root", "/r")], create_options, ID, table)
    assert first[first.index("restore") :][1:3] == ["--detach", "--tcp-established"]
    assert "--console-socket" in first
    assert everlease_runc.started_by_restore(settings(tmp_path), ID)
    assert not everlease_runc.started_by_restore(settings(tmp_path), ID)
    # `docker restart`: nothing runs that the agent did not start.
    with pytest.raises(rootfs.Refused, match="not started by the agent"):
        everlease_runc.create(settings(tmp_path), [("--root", "/r")], create_options, ID, table)
    oci.permit_start(tmp_path, ID)
    assert "restore" not in everlease_runc.create(settings(tmp_path), [("--root", "/r")], create_options, ID, table)


def test_a_private_cgroup_namespace_is_restored_through_the_shim(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By PATH: runc from 1.2 on writes a warning about --criu into the job's own output."""
    oci.prepare(tmp_path, ID, (), "100.64.0.2")
    where, table = bundle(tmp_path), mounted(tmp_path)
    config = json.loads((where / "config.json").read_text())
    for namespaces, profile, first in (([], None, "/bin"), ([{"type": "cgroup"}], "docker-default", "/shim")):
        monkeypatch.setenv("PATH", "/bin")
        config["linux"]["namespaces"], config["process"] = namespaces, {"apparmorProfile": profile}
        (where / "config.json").write_text(json.dumps(config))
        oci.mark_restore(tmp_path, ID, images=tmp_path / "i", work=tmp_path / "w", upper=None)
        oci.permit_start(tmp_path, ID)
        words = everlease_runc.create(settings(tmp_path), [], [("--bundle", str(where))], ID, table)
        assert "--criu" not in words
        assert os.environ["PATH"].split(os.pathsep)[0] == first
        assert ("apparmor:docker-default" in words) == (profile is not None)


def test_a_restore_binds_the_cgroups_of_the_container_and_a_null_device_of_its_own(tmp_path: Path) -> None:
    folder = oci.prepare(tmp_path, ID, (), "100.64.0.2")
    before = (folder / "criu.conf").read_text()
    oci.mark_restore(tmp_path, ID, images=tmp_path / "i", work=tmp_path / "w", upper=None)
    where, table = bundle(tmp_path), mounted(tmp_path)
    config = json.loads((where / "config.json").read_text())
    config["linux"]["cgroupsPath"] = "everlease-jobs-ab.slice:docker:X"
    (where / "config.json").write_text(json.dumps(config))
    with Path(table).open("a") as stream:
        for name in ("cpu,cpuacct", "misc"):
            stream.write(f"9 1 0:9 / /sys/fs/cgroup/{name} rw - cgroup cgroup rw\n")
    oci.permit_start(tmp_path, ID)
    everlease_runc.create(settings(tmp_path), [], [("--bundle", str(where))], ID, table)
    text = (folder / "criu.conf").read_text()
    own = "/everlease.slice/everlease-jobs.slice/everlease-jobs-ab.slice/docker-X.scope"
    assert f"external mnt[/sys/fs/cgroup/cpu,cpuacct]:/sys/fs/cgroup/cpu,cpuacct{own}\n" in text
    assert f"external mnt[/sys/fs/cgroup/misc]:{folder}/nothing\n" in text
    assert f"external mnt[/dev/null]:{folder}/null\n" in text
    # A dump that comes later must name its mounts as runc does.
    assert everlease_runc.started_by_restore(settings(tmp_path), ID)
    assert (folder / "criu.conf").read_text() == before
    assert everlease_runc.cgroup_path("/docker/X") == "/docker/X"


def test_files_alone_are_put_back_without_a_restore(tmp_path: Path) -> None:
    oci.prepare(tmp_path, ID, (), "100.64.0.2")
    oci.mark_restore(tmp_path, ID, images=None, work=tmp_path / "w", upper=None)
    oci.permit_start(tmp_path, ID)
    words = everlease_runc.create(settings(tmp_path), [], [("--bundle", str(bundle(tmp_path)))], ID, mounted(tmp_path))
    assert "create" in words
    assert not everlease_runc.started_by_restore(settings(tmp_path), ID)


def test_layers_of_both_image_stores_are_found(tmp_path: Path) -> None:
    """Docker's overlay2 and containerd's snapshots shorten their layers' paths in ways of their own."""
    docker, snapshots = tmp_path / "a b", tmp_path / "snapshots"
    for folder in (docker / "l" / "X", docker / "1" / "diff", docker / "1" / "merged", snapshots / "7" / "fs"):
        folder.mkdir(parents=True)
    (snapshots / "9" / "fs").mkdir(parents=True)
    bare = tmp_path / "rootfs"
    bare.mkdir()
    cases = (
        (docker / "1" / "merged", "l/X", "1/diff", docker / "1" / "diff"),
        (bare, "7/fs", str(snapshots / "9" / "fs"), snapshots / "9" / "fs"),
    )
    table = tmp_path / "mountinfo"
    for place, lower, upper, expected in cases:
        shown = str(place).replace(" ", "\\040")
        data = f"rw,lowerdir={lower},upperdir={upper},workdir=w,index=off"
        table.write_text(f"2 1 0:9 / {shown} rw,nodev - overlay overlay {data}\n")
        found = rootfs.find_overlay(str(place), str(table))
        assert (Path(found.upper), found.flags) == (expected, 4)
    table.write_text(f"2 1 0:9 / {bare} rw - overlay overlay rw,lowerdir=x/y,upperdir=/nowhere/9/fs,workdir=w\n")
    for text in (table.read_text(), f"2 1 0:9 / {bare} rw - ext4 /dev/x rw\n", ""):
        table.write_text(text)
        with pytest.raises(rootfs.Refused):
            rootfs.find_overlay(str(bare), str(table))


def test_a_daemon_without_seccomp_runs_no_job(tmp_path: Path) -> None:
    where = bundle(tmp_path, None)
    with pytest.raises(rootfs.Refused, match="seccomp"):
        everlease_runc.create(settings(tmp_path), [], [("--bundle", str(where))], ID)


def test_the_copy_runs_without_the_package(tmp_path: Path) -> None:
    """As Docker calls it: no site packages, no folder of its own in the path."""
    (tmp_path / "runtime").mkdir()
    wrapper = oci.install_wrapper(tmp_path / "runtime", runc=Path("/bin/echo"), criu=None)
    log, folder = tmp_path / "log.json", oci.prepare(tmp_path / "runtime", ID, (), "100.64.0.2")
    assert subprocess.check_output([wrapper, "--log", log, "state", ID], text=True) == f"--log {log} state {ID}\n"
    assert subprocess.run([wrapper, "--log", log, "start", ID], check=False, cwd="/").returncode == 1
    assert "no guard watches this container" in log.read_text()
    shutil.rmtree(folder)
    where = bundle(tmp_path)
    create = ["--log", str(log), "create", "--bundle", str(where), ID]
    assert subprocess.check_output([wrapper, *create], text=True) == f"{' '.join(create)}\n"
    (where / "config.json").write_text("{}")
    assert subprocess.run([wrapper, *create], check=False).returncode == 1
    assert "seccomp profile" in log.read_text().splitlines()[-1]


def test_a_refusal_is_said_where_docker_looks_for_it(tmp_path: Path) -> None:
    log = tmp_path / "log.json"
    with pytest.raises(SystemExit) as ended:
        everlease_runc.refuse([("--log", str(log))], "no")
    assert ended.value.code == 1
    said = json.loads(log.read_text())
    assert (said["level"], said["msg"]) == ("error", "everlease-runc: no")
    words = "OCI runtime create failed: everlease-runc: files can't be put back: tar: x: unknown"
    assert diagnosis.explain_restore(words, tmp_path / "none").sentence == "files can't be put back: tar: x"


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
    assert refusal("4.2.1", "6.18.44", "overlay2", seccomp=True, selinux=False) == ""
    old_criu, old_kernel = ("3.17", "6.1", "overlay2"), ("4.2", "4.19", "overlay2")
    for bad in (("", "6.1", "overlay2"), old_criu, old_kernel, ("4.2", "6.1", "vfs")):
        assert "files mode" in refusal(*bad, seccomp=True, selinux=False)
    assert "seccomp" in refusal("4.2.1", "6.1", "overlay2", seccomp=False, selinux=False)
    assert "SELinux" in refusal("4.2.1", "6.1", "overlay2", seccomp=True, selinux=True)


def test_what_confines_containers_is_read_from_docker_info() -> None:
    """As Debian's Docker and one on a kernel without AppArmor say it; and an engine with neither."""
    debian = {"SecurityOptions": ["name=apparmor", "name=seccomp,profile=default", "name=cgroupns"]}
    assert [secured(debian, means) for means in ("apparmor", "seccomp")] == [True, True]
    bare = {"SecurityOptions": ["name=seccomp,profile=builtin"]}
    assert [secured(bare, means) for means in ("apparmor", "seccomp")] == [False, True]
    for neither in ({}, {"SecurityOptions": None}, {"SecurityOptions": ["name=cgroupns"]}):
        assert not secured(neither, "seccomp")
        assert unsupported(neither) == ""


@pytest.mark.parametrize(("option", "told"), [("name=userns", "userns-remap"), ("name=rootless", "without root")])
def test_a_daemon_that_remaps_users_or_has_no_root_gets_no_job_at_all(option: str, told: str) -> None:
    """Files in the upper directory have the host's numbers as their owners: elsewhere they would be nobody's."""
    assert told in unsupported({"SecurityOptions": ["name=seccomp,profile=default", option, "name=cgroupns"]})


def test_the_lease_file_and_the_cgroup_of_a_task(tmp_path: Path) -> None:
    assert guard.read_lease(tmp_path) == 0.0
    guard.write_lease(tmp_path, 1234.5)
    assert guard.read_lease(tmp_path) == 1234.5
    line = (tmp_path / "lease").read_text().splitlines()[0]
    for torn in (f"{line}\n{line.replace('1234', '9234')}\n", f"{line}\n", "", f"{line}\n{line}\n{line}\n"):
        (tmp_path / "lease").write_text(torn)
        assert guard.read_lease(tmp_path) == 0.0
    other_boot = line.replace(guard.boot_id(), "6d2c2f0e-0000-4000-8000-000000000000")
    for foreign in (other_boot, line.replace("2 ", "3 ", 1)):
        (tmp_path / "lease").write_text(f"{foreign}\n{foreign}\n")
        assert guard.read_lease(tmp_path) == 0.0
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "cgroup").write_text("5:freezer:/docker/x\n0::/y\n")
    found = guard.freezer_of(7, proc=tmp_path, mounts=tmp_path / "cg")
    assert (found.version, found.path) == (1, tmp_path / "cg/freezer/docker/x")
    (tmp_path / "7" / "cgroup").write_text("0::/system.slice/docker-x.scope\n")
    found = guard.freezer_of(7, proc=tmp_path, mounts=tmp_path / "cg")
    assert (found.version, found.path) == (2, tmp_path / "cg/system.slice/docker-x.scope")
