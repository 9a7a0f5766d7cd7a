"""Disk images of hosts: a Debian in a folder, then an ext4 image, a kernel and a small initrd beside it.

Made once for each content of the recipe and kept in .build/hosts/images/KIND-DIGEST.
"""

import hashlib
import os
import shlex
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hosts.folders import clear, locked
from hosts.kinds import Kind
from hosts.recipe import FILES, KERNEL_ARGUMENTS, UNITS_OFF

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / ".build" / "hosts"
DISK_GIB = 16
MODULES = ("virtio_pci", "virtio_blk", "crc32c_generic", "ext4")
"""What the initrd loads, with what they depend on, to find the disk."""

INIT = """#!/bin/busybox sh
/bin/busybox mount -t proc none /proc
/bin/busybox mount -t sysfs none /sys
/bin/busybox mount -t devtmpfs none /dev
for module in {modules}; do /bin/busybox insmod /modules/$module 2>/dev/null; done
until [ -b /dev/vda ]; do /bin/busybox sleep 0.1; done
/bin/busybox mount -t ext4 -o rw /dev/vda /root
/bin/busybox umount /proc /sys
/bin/busybox mount --move /dev /root/dev
exec /bin/busybox switch_root /root /sbin/init
"""


class BuildFailed(Exception):
    """An image could not be made; the message names the log."""


@dataclass(frozen=True, slots=True)
class Image:
    """A bootable disk: raw or qcow2 ``disk``, and the kernel and initrd that QEMU is given."""

    kind: str
    disk: Path
    kernel: Path
    initrd: Path
    key: Path

    @property
    def root(self) -> Path:
        """The folder that the disk was made of."""
        return self.kernel.with_name("root")

    @property
    def append(self) -> str:
        return KERNEL_ARGUMENTS


def ssh_key() -> Path:
    """The bench's own key, by which root of every guest lets it in."""
    key = BUILD / "key"
    if not key.exists():
        BUILD.mkdir(parents=True, exist_ok=True)
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key), "-C", "bench"], check=True)
    return key


def digest_of(kind: Kind) -> str:
    """12 hex digits of all that goes into an image."""
    recipe = Path(__file__).with_name("recipe.py").read_bytes()
    content = repr((kind, DISK_GIB, MODULES, INIT)).encode() + recipe + ssh_key().with_suffix(".pub").read_bytes()
    return hashlib.sha256(content).hexdigest()[:12]


def image_of(kind: Kind) -> Image:
    """The image of this kind, built when it isn't there. Raises BuildFailed."""
    folder = BUILD / "images" / f"{kind.name}-{digest_of(kind)}"
    image = Image(kind.name, folder / "disk.raw", folder / "vmlinuz", folder / "initrd", ssh_key())
    with locked(folder.parent / f"{kind.name}.lock"):
        _make(kind, folder)
    return image


def _make(kind: Kind, folder: Path) -> None:
    if not folder.exists():
        part = folder.with_name(f"{folder.name}.part")
        clear(part)
        part.mkdir(parents=True)
        _build(kind, part)
        part.rename(folder)


def _build(kind: Kind, folder: Path) -> None:
    log, root = folder / "log", folder / "root"
    run(log, _mmdebstrap(kind, root), env={"INITRD": "No"})
    _customise(root, kind.files)
    release = next(path.name for path in (root / "lib" / "modules").iterdir())
    run(log, ["chroot", str(root), "depmod", release])
    shutil.copyfile(root / "boot" / f"vmlinuz-{release}", folder / "vmlinuz")
    _initrd(log, root / "lib" / "modules" / release, folder)
    make_disk(root, folder / "disk.raw", log)


def make_disk(root: Path, disk: Path, log: Path) -> None:
    """An ext4 image of a folder. Raises BuildFailed."""
    with disk.open("wb") as file:
        file.truncate(DISK_GIB << 30)
    run(log, ["mke2fs", "-q", "-t", "ext4", "-O", "^metadata_csum_seed,^orphan_file", "-d", str(root), str(disk)])


def archive_uri(codename: str) -> str:
    """Where this machine's own apt configuration finds Debian. Raises BuildFailed."""
    argv = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages", f"Codename: {codename}"]
    found = subprocess.run(argv, capture_output=True, text=True, check=False).stdout.split()
    if not found:
        raise BuildFailed("this machine's apt knows no Debian archive: add one to its sources and run 'apt-get update'")
    return found[0].rstrip("/")


def machine_codename() -> str:
    """This machine's own release."""
    lines = Path("/etc/os-release").read_text(encoding="utf-8").splitlines()
    return next(line.partition("=")[2].strip('"') for line in lines if line.startswith("VERSION_CODENAME="))


def _mmdebstrap(kind: Kind, root: Path) -> list[str]:
    archive = archive_uri(machine_codename())
    sources = "\n".join(f"deb {archive} {suite} main" for suite in (kind.suite, *kind.extra))
    sources_file, pins = root.with_name("sources"), root.with_name("pins")
    sources_file.write_text(sources + "\n", encoding="utf-8")
    blocks = [f"Package: *\nPin: release n={suite}\nPin-Priority: 100\n" for suite in kind.extra]
    for pin in kind.pinned:
        package, _, suite = pin.partition(":")
        blocks.insert(0, f"Package: {package}\nPin: release n={suite}\nPin-Priority: 900\n")
    pins.write_text("\n".join(blocks), encoding="utf-8")
    return [
        "mmdebstrap", "--variant=important", "--mode=root", f"--include={','.join(kind.packages)}",
        '--aptopt=Acquire::Check-Valid-Until "false"', '--aptopt=APT::Install-Recommends "false"',
        '--dpkgopt=path-exclude=/usr/share/man/*', '--dpkgopt=path-exclude=/usr/share/locale/*',
        f"--setup-hook=mkdir -p $1/etc/apt/preferences.d && cp {shlex.quote(str(pins))} $1/etc/apt/preferences.d/bench",
        kind.suite, str(root), str(sources_file),
    ]  # fmt: skip


def _customise(root: Path, files: Mapping[str, str]) -> None:
    for name, text in {**FILES, **files}.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    # The guest's apt knows the bench's mirror alone, never the sources of the machine that built it.
    for file in (root / "etc/apt/sources.list", root / "etc/apt/preferences.d/bench"):
        file.unlink(missing_ok=True)
    for file in (root / "etc/apt/sources.list.d").glob("*"):
        file.unlink()
    (root / "var/log/journal").mkdir(exist_ok=True)
    keys = root / "root" / ".ssh"
    keys.mkdir(mode=0o700, exist_ok=True)
    shutil.copyfile(ssh_key().with_suffix(".pub"), keys / "authorized_keys")
    resolved = root / "etc" / "resolv.conf"
    resolved.unlink(missing_ok=True)
    resolved.write_text("nameserver 10.0.2.3\n", encoding="ascii")
    (root / "etc/machine-id").write_text("", encoding="ascii")
    subprocess.run(["systemctl", f"--root={root}", "mask", *UNITS_OFF], check=True, capture_output=True)
    subprocess.run(["systemctl", f"--root={root}", "enable", "systemd-networkd"], check=True, capture_output=True)


def _initrd(log: Path, modules: Path, folder: Path) -> None:
    tree = folder / "initrd.d"
    for name in ("bin", "proc", "sys", "dev", "root", "modules"):
        (tree / name).mkdir(parents=True)
    busybox = shutil.which("busybox")
    if busybox is None:
        raise BuildFailed("busybox is missing: install busybox-static")
    shutil.copy(busybox, tree / "bin" / "busybox")
    names = []
    for path in _with_dependencies(modules):
        name = path.name.split(".ko")[0] + ".ko"
        data = path.read_bytes()
        if path.suffix == ".xz":
            data = subprocess.run(["xz", "-dc"], input=data, capture_output=True, check=True).stdout
        (tree / "modules" / name).write_bytes(data)
        names.append(name)
    (tree / "init").write_text(INIT.format(modules=" ".join(names)), encoding="ascii")
    (tree / "init").chmod(0o755)
    script = f"cd {shlex.quote(str(tree))} && find . | busybox cpio -o -H newc > {shlex.quote(str(folder / 'initrd'))}"
    run(log, ["sh", "-c", script])
    shutil.rmtree(tree)


def _with_dependencies(modules: Path) -> list[Path]:
    """The modules' files in the order of loading, by the kernel's own modules.dep; built-in ones are left out."""
    needs: dict[str, list[str]] = {}
    for line in (modules / "modules.dep").read_text(encoding="utf-8").splitlines():
        file, _, depends = line.partition(":")
        needs[file] = depends.split()
    by_name = {Path(file).name.split(".ko")[0].replace("-", "_"): file for file in needs}
    ordered: list[str] = []
    for name in MODULES:
        file = by_name.get(name)
        if file is not None:
            ordered += [item for item in [*reversed(needs[file]), file] if item not in ordered]
    return [modules / file for file in ordered]


def run(log: Path, argv: list[str], *, env: dict[str, str] | None = None) -> None:
    """Run a command with its output in the log. Raises BuildFailed."""
    with log.open("ab") as output:
        code = subprocess.run(
            argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env={**os.environ, **(env or {})}, check=False
        ).returncode
    if code:
        raise BuildFailed(f"'{argv[0]}' ended with code {code}: see {log}")
