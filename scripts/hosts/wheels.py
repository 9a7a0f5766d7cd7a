"""The wheelhouse that guests install the agent from: this checkout's wheel and what it needs, for each kind's Python.

Cached by content: the dependencies by their pins, the checkout's wheel by the packages' files.
"""

import functools
import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from hosts.folders import locked
from hosts.images import BUILD, ROOT, BuildFailed

CRIU = ROOT / "scripts" / "criu_wheel.py"
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
PLATFORMS = ("manylinux2014_x86_64", "manylinux_2_28_x86_64", "manylinux_2_17_x86_64")
PINS = ROOT / "requirements" / "services.txt"
PROJECT = ROOT / "pyproject.toml"
UV = ROOT / ".tools" / "uv" / "bin" / "uv"
PIP = ROOT / ".tools" / "uv" / "bin" / "pip"
PACKAGES = ("everlease", "marketplace", "provider_agent", "indexer", "recovery")


def wheelhouse() -> Path:
    """A folder with all wheels, made when its content is not there. Raises BuildFailed."""
    folder = BUILD / "wheels" / digest()
    with locked(folder.with_name("lock")):
        if not folder.exists():
            part = folder.with_name(f"{folder.name}.part")
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir(parents=True)
            _run(str(PIP), "wheel", "-q", "--no-deps", "-w", str(part), str(_copy()))
            for wheel in dependencies().glob("*.whl"):
                os.link(wheel, part / wheel.name)
            part.rename(folder)
    return folder


@functools.cache
def digest() -> str:
    """12 hex digits of the checkout's packages and their pins: the name of what a guest has installed.

    Taken once: a checkout that changes under a run must not change what the run's guests are made of.
    """
    found = hashlib.sha256(PINS.read_bytes())
    for name in ("pyproject.toml", "deploy", "README.md", *PACKAGES):
        path = ROOT / name
        files = sorted(item for item in path.rglob("*") if item.is_file()) if path.is_dir() else [path]
        for file in files:
            if file.exists() and "__pycache__" not in file.parts:
                found.update(str(file.relative_to(ROOT)).encode() + b"\0" + file.read_bytes())
    return found.hexdigest()[:12]


def dependencies() -> Path:
    """CRIU's wheel and what `everlease[agent]` needs, for each Python; a package without a wheel for one fails."""
    content = PINS.read_bytes() + PROJECT.read_bytes() + CRIU.read_bytes() + repr(PYTHONS).encode()
    folder = BUILD / "wheels" / f"pins-{hashlib.sha256(content).hexdigest()[:12]}"
    if not folder.exists():
        part = folder.with_name(f"{folder.name}.part")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        pins = part / "pins"
        found = re.findall(r"^([a-z0-9._-]+==[^ \\]+)", PINS.read_text(encoding="utf-8"), re.MULTILINE)
        pins.write_text("\n".join(found) + "\n", encoding="ascii")
        platforms = [word for name in PLATFORMS for word in ("--platform", name)]
        for python in PYTHONS:
            # uv resolves for another Python than its own; pip, which doesn't, only downloads.
            names = part / f"names-{python}"
            _run(
                str(UV), "pip", "compile", "-q", str(PROJECT), "--extra", "agent", "-c", str(pins), "--no-header",
                "--no-annotate", "--python-version", python, "-o", str(names),
            )  # fmt: skip
            words = ("--only-binary", ":all:", "--no-deps", "-d", str(part), "-r", str(names))
            _run(str(PIP), "download", "-q", *words, "--python-version", python, *platforms)
        _run(sys.executable, str(CRIU), "--out", str(part))
        part.rename(folder)
    return folder


def _copy() -> Path:
    """The checkout's packages beside their pyproject.toml, so that a build leaves nothing in the checkout."""
    target = BUILD / "wheels" / "source"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, target / name)
    for name in PACKAGES:
        shutil.copytree(ROOT / name, target / name, ignore=shutil.ignore_patterns("__pycache__"))
    return target


def _run(*argv: str) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BuildFailed(f"'{' '.join(argv[:3])}' failed: {done.stderr.strip()[-800:]}")
