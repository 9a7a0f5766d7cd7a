"""Build CRIU as a platform wheel from Debian's own packages, so that a host installs it with pip.

Usage: python3 scripts/criu_wheel.py [--out .build/wheels]          build everlease_criu-…_x86_64.whl, print its path
       python3 scripts/criu_wheel.py --prefix .tools/criu           install it there by pip; PREFIX/criu runs it

The wheel holds the binary, its loader and the libraries it was linked with, Debian's copyright file of each package,
and SOURCE with the versions, sums and places of the source packages. The machine's own libc and CRIU stay untouched.
"""

import argparse
import base64
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from debian_archive import ArchiveFailed, download

ROOT = Path(__file__).resolve().parents[1]
UV = ROOT / ".tools" / "uv" / "bin" / "uv"
SUITE = "sid"
OLDEST = (4, 2)
LIBRARIES = "usr/lib/x86_64-linux-gnu"
LOADER = "ld-linux-x86-64.so.2"
PLATFORM = "manylinux_2_17_x86_64"
EPOCH = (2026, 1, 1, 0, 0, 0)

PINNED = {
    "criu": ("4.2.1-1", "4039578de7dd6480964754c1348416f0f0658fba3eadaa918bfe43e9a5fb9b04"),
    "libbsd0": ("0.12.2-3", "0383e47d704a5e58080606cbcafd2f2aa725702767ccf8b877fb224d04ff38c5"),
    "libc6": ("2.43-7", "5c71715c51103beb4fbba9fe9f8dff604af6610dfa71c70bff342f54a7860803"),
    "libffi8": ("3.8.0-2", "8f52979b2f3831088c419aae858f10fd3ad7e42cc6c1d28967bae996a98223a4"),
    "libgmp10": ("2:6.3.0+dfsg-5+b2", "032743c787f0e1e644e4dcfbdb38f01be8cb150cb9633f8be5e79aba6938f349"),
    "libgnutls30t64": ("3.8.13-1", "81f7f28a3968228293cabf6a92f7d6b2a8807f64ccf57469f2ce9a06b7b226af"),
    "libhogweed6t64": ("3.10.2-1+b1", "d5872392a9d3b9b6e06f3dbd07a3f954346226d9fa2f318c4a3b5732b060fc44"),
    "libidn2-0": ("2.3.8-5", "25a38f7d9ba5bb3daf47a21ad5d348303e602f3c9037a48d621683fe87e7ce28"),
    "libjansson4": ("2.15.1-1", "024a1537ca17a8215c7b03c6e84ea961ae96d3ecce9cd1db6a5226c180568419"),
    "libmd0": ("1.3.0-1", "b93615e08319799bedd98a68643d607b06a7713365f829fb3cae131f8a3b81b1"),
    "libmnl0": ("1.0.5-3+b2", "5c058833d7f95cea335627f8ae48dbac38749493867ed3151113150e1612b264"),
    "libnet9": ("1.3+dfsg-3+b2", "2a27e79bb376a1052a77b6373e17b3c2e71b2b2d15bc05d899f2a6318e5d36ea"),
    "libnettle8t64": ("3.10.2-1+b1", "213f9f0119cd63efc2529401547bad5f6d2cea4cae5d05cffdef22f19aabb30e"),
    "libnftables1": ("1.1.7-3", "a9fe852108aa99288b9305534203869e406aedaebeb833a48a32c48e50affd75"),
    "libnftnl11": ("1.3.2-1", "409b62c0d383ae181e3550d0ec9279359856d98a449d8bce9983f69e1995dbc6"),
    "libnl-3-200": ("3.12.0-2+b1", "a5ca78bbb9d5cc067b78952c5d38b7caac831d42e94b85b91edf1f6f00dfd48a"),
    "libp11-kit0": ("0.26.5-1", "7f6187247766dca57582c4fa327928fb612de3cd17a13786c1762c57357b4930"),
    "libprotobuf-c1": ("1.5.1-1+b2", "8f0f2c76c4574b986aec4d3ed53e5b5939a8ce26c21294adf9020ebed9d2b3da"),
    "libtasn1-6": ("4.21.0-2+b1", "097059368c29f6bac5253cc9a4ee3b8c2f449326de016feddf5a00b896fabe49"),
    "libunistring5": ("1.4.2-1", "509fb596f6b4de34f1d9cb5a0001abc3c6c51f4800e908ef888262ebdaaefa3b"),
    "libuuid1": ("2.42.4-1", "bdef15911ca5748219f5257bf4f1e81444fb40966499c02b1176bfbbcd9a2d08"),
    "libxtables12": ("1.8.13-1", "08ca0b50ecc24b84faf75716b4a7a279a5e5fb01d7a5c602fe3f473b6d9ffcb9"),
}
"""Debian package → (version, sha256 of its .deb): CRIU and everything that it is linked with."""

MODULE = '''"""CRIU as Debian builds it, with its own loader and libraries; see SOURCE and copyright/."""

import os
import sys
from pathlib import Path


def path() -> Path:
    """The program to run: hand it to the agent's setting CRIU, or to runc's --criu."""
    return Path(__file__).resolve().parent / "bin" / "criu"


def main() -> None:
    """Become CRIU."""
    os.execv(path(), [str(path()), *sys.argv[1:]])
'''
WRAPPER = """#!/bin/sh
here=$(dirname "$(dirname "$(readlink -f "$0")")")
exec "$here/lib/@@LOADER@@" --library-path "$here/lib" "$here/lib/criu.elf" "$@"
"""
METADATA = """Metadata-Version: 2.1
Name: everlease-criu
Version: {version}
Summary: CRIU {debian} as Debian builds it, for hosts of Everlease
Requires-Python: >=3.11
License: GPL-2.0-only AND LGPL-2.1-or-later AND others, see everlease_criu/copyright
"""


class WheelRefused(Exception):
    """What can't be built; one sentence."""


@dataclass(frozen=True)
class Package:
    """One .deb: Debian's name, version and source package, the file's sum, and where its content lies unpacked."""

    name: str
    version: str
    source: str
    sha256: str
    root: Path


def unpack(deb: Path, into: Path) -> Package:
    """Unpack one package. Raises WheelRefused where a pinned version has another sum."""
    fields = subprocess.run(["dpkg-deb", "-f", str(deb)], capture_output=True, text=True, check=True).stdout
    found = dict(line.split(": ", 1) for line in fields.splitlines() if ": " in line and not line.startswith(" "))
    name, version = found["Package"], found["Version"]
    digest = hashlib.sha256(deb.read_bytes()).hexdigest()
    pinned, expected = PINNED[name]
    if version == pinned and digest != expected:
        raise WheelRefused(f"{deb.name} has the sum {digest}, but {expected} is pinned: don't use this mirror")
    if version != pinned:
        print(f"note: {name} {pinned} is pinned, the archive has moved on to {version}", file=sys.stderr)
    root = into / name
    root.mkdir(parents=True)
    subprocess.run(["dpkg-deb", "-x", str(deb), str(root)], check=True)
    # "Source: glibc (2.43-7)" where its version differs, "Source: glibc" where it doesn't; else the package's own name.
    source = re.fullmatch(r"(\S+)(?: \((\S+)\))?", found.get("Source", name))
    assert source is not None
    return Package(name, version, f"{source.group(1)} {source.group(2) or version}", digest, root)


def content(packages: list[Package]) -> dict[str, tuple[bytes, int]]:
    """Path in the wheel → bytes and mode. Raises WheelRefused where a library is missing."""
    by_name = {package.name: package for package in packages}
    files = {
        "everlease_criu/__init__.py": (MODULE.encode(), 0o644),
        "everlease_criu/py.typed": (b"", 0o644),
        "everlease_criu/bin/criu": (WRAPPER.replace("@@LOADER@@", LOADER).encode(), 0o755),
        "everlease_criu/lib/criu.elf": ((by_name["criu"].root / "usr/sbin/criu").read_bytes(), 0o755),
        f"everlease_criu/lib/{LOADER}": ((by_name["libc6"].root / LIBRARIES / LOADER).read_bytes(), 0o755),
        "everlease_criu/SOURCE": (source_note(packages).encode(), 0o644),
    }
    folders = [package.root / LIBRARIES for package in packages]
    for library in linked(by_name["criu"].root / "usr/sbin/criu", folders):
        found = next((folder / library for folder in folders if (folder / library).exists()), None)
        if found is None:
            raise WheelRefused(f"CRIU needs {library}, which no pinned package has: add its package to PINNED")
        files[f"everlease_criu/lib/{library}"] = (found.read_bytes(), 0o644)
    for package in packages:
        copyright_file = package.root / "usr/share/doc" / package.name / "copyright"
        files[f"everlease_criu/copyright/{package.name}"] = (copyright_file.read_bytes(), 0o644)
    return files


def linked(binary: Path, folders: list[Path]) -> list[str]:
    """The libraries that the loader finds for a program, all levels deep."""
    loader = next(folder / LOADER for folder in folders if (folder / LOADER).exists())
    argv = [str(loader), "--library-path", ":".join(map(str, folders)), "--list", str(binary)]
    listed = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    names = [line.split()[0] for line in listed.splitlines()]
    return sorted(name for name in names if "/" not in name and not name.startswith("linux-vdso"))


def source_note(packages: list[Package]) -> str:
    """Where the sources of everything in the wheel are."""
    lines = [
        "lib/ holds unchanged files of these binary packages of Debian (main, amd64); their licences are in",
        "copyright/. The source packages are in Debian's archive (apt-get source NAME=VERSION, from sid), and",
        "for ever at https://snapshot.debian.org/package/NAME/VERSION/.",
        "",
    ]
    for package in packages:
        lines.append(
            f"{package.name} {package.version}  source: {package.source}  sha256 of the .deb: {package.sha256}"
        )
    return "\n".join(lines) + "\n"


def write_wheel(files: dict[str, tuple[bytes, int]], debian: str, out: Path) -> Path:
    """The wheel, the same bytes for the same packages. Its version is CRIU's."""
    version = criu_version(debian)
    name = f"everlease_criu-{version}"
    info = f"{name}.dist-info"
    tag = f"py3-none-{PLATFORM}"
    files = files | {
        f"{info}/METADATA": (METADATA.format(version=version, debian=debian).encode(), 0o644),
        f"{info}/WHEEL": (
            f"Wheel-Version: 1.0\nGenerator: everlease\nRoot-Is-Purelib: false\nTag: {tag}\n".encode(),
            0o644,
        ),
        f"{info}/entry_points.txt": (b"[console_scripts]\neverlease-criu = everlease_criu:main\n", 0o644),
    }
    record = []
    for path, (data, _) in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        record.append(f"{path},sha256={digest},{len(data)}")
    record.append(f"{info}/RECORD,,")
    files[f"{info}/RECORD"] = ("\n".join(record).encode() + b"\n", 0o644)
    out.mkdir(parents=True, exist_ok=True)
    wheel = out / f"{name}-{tag}.whl"
    part = wheel.with_suffix(".part")
    with zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, (data, mode) in files.items():
            entry = zipfile.ZipInfo(path, EPOCH)
            entry.external_attr, entry.compress_type = (0o100000 | mode) << 16, zipfile.ZIP_DEFLATED
            archive.writestr(entry, data)
    part.replace(wheel)
    return wheel


def criu_version(debian: str) -> str:
    """The upstream version in one of Debian's. Raises WheelRefused below 4.2."""
    found = re.match(r"(?:\d+:)?(\d+(?:\.\d+)*)", debian)
    version = found.group(1) if found else ""
    if not version or tuple(map(int, version.split(".")[:2])) < OLDEST:
        raise WheelRefused(f"Debian {SUITE} offers CRIU {debian}, but 4.2 or newer is needed: only files mode works")
    return version


def build(out: Path) -> Path:
    """Fetch, unpack, write; the wheel's path. Raises ArchiveFailed, WheelRefused."""
    with tempfile.TemporaryDirectory(prefix="criu-wheel-") as folder:
        work = Path(folder)
        debs = download(work, SUITE, {name: version for name, (version, _) in PINNED.items()})
        packages = sorted((unpack(deb, work / "unpacked") for deb in debs), key=lambda package: package.name)
        debian = next(package.version for package in packages if package.name == "criu")
        return write_wheel(content(packages), debian, out)


def install(wheel: Path, prefix: Path) -> None:
    """Install the wheel below a folder of its own, as pip would; PREFIX/criu leads to the program."""
    part = prefix.with_name(f"{prefix.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    pip = [str(UV), "pip", "install", "-q"] if UV.exists() else [sys.executable, "-m", "pip", "install", "-q"]
    subprocess.run([*pip, "--no-deps", "--no-index", "--target", str(part), str(wheel)], check=True)
    (part / "criu").symlink_to("everlease_criu/bin/criu")
    shutil.rmtree(prefix, ignore_errors=True)
    part.replace(prefix)


def usable(criu: Path) -> bool:
    """Whether a CRIU of 4.2 or newer runs there."""
    if not os.access(criu, os.X_OK):
        return False
    said = subprocess.run([str(criu), "--version"], capture_output=True, text=True, check=False).stdout
    found = re.search(r"Version: (\d+)\.(\d+)", said)
    return found is not None and (int(found.group(1)), int(found.group(2))) >= OLDEST


def main() -> int:
    """0 when the wheel is built, or CRIU is in the prefix."""
    parser = argparse.ArgumentParser(description="CRIU as a platform wheel")
    parser.add_argument("--out", type=Path, default=ROOT / ".build" / "wheels")
    parser.add_argument("--prefix", type=Path)
    chosen = parser.parse_args()
    if chosen.prefix is not None and usable(chosen.prefix / "criu"):
        print(f"CRIU is already in {chosen.prefix}")
        return 0
    try:
        wheel = build(chosen.out)
        if chosen.prefix is not None:
            install(wheel, chosen.prefix)
    except (ArchiveFailed, WheelRefused, OSError, subprocess.SubprocessError) as error:
        print(f"CRIU could not be packed: {error}", file=sys.stderr)
        return 1
    print(wheel)
    return 0


if __name__ == "__main__":
    sys.exit(main())
