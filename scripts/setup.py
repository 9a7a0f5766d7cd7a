"""Set the checkout up: system packages, Python environments, contract tools, contracts, CRIU, container image.

Usage: python3 scripts/setup.py       Idempotent; what is there is skipped. Logs go to .build/logs.
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from steps import ROOT, Log, Step, StepFailed, run_steps

TOOLS = ROOT / ".tools"
UV = TOOLS / "uv" / "bin" / "uv"
UV_VERSION = "0.13.9"
ANVIL = ROOT / "node_modules/@foundry-rs/anvil-linux-amd64/bin/anvil"
FORGE = ROOT / "node_modules/@foundry-rs/forge-linux-amd64/bin/forge"

PACKAGES = {
    "docker.io": "dockerd",
    "mmdebstrap": "mmdebstrap",
    "iproute2": "ip",
    "iptables": "iptables",
    "procps": "ps",
    "util-linux": "nsenter",
    "passwd": "useradd",
}
"""Debian package → a command that shows it is there."""

NO_PACKAGES = (
    "System packages are missing and could not be installed: run 'apt-get install -y {missing}' as root; until then "
    "services, contracts and their tests work, containers don't."
)
NO_CRIU = "CRIU 4.2 could not be set up: nodes offer checkpoints in 'files' mode only; everything else works."
NO_IMAGE = "The demo's container image could not be built: jobs with images of your own work, the demo doesn't."


def missing_packages(packages: Mapping[str, str] = PACKAGES) -> list[str]:
    """Debian packages whose command isn't on the path."""
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    return [package for package, command in packages.items() if shutil.which(command, path=path) is None]


def install_packages(log: Log, packages: Mapping[str, str] = PACKAGES) -> None:
    """apt-get what is missing. Services of new packages aren't started: the demo runs a Docker daemon of its own."""
    missing = missing_packages(packages)
    if not missing:
        return
    if os.geteuid() != 0:
        raise StepFailed("only root can install system packages")
    policy = Path("/usr/sbin/policy-rc.d")
    ours = not policy.exists()
    if ours:
        policy.write_text("#!/bin/sh\nexit 101\n", encoding="ascii")
        policy.chmod(0o755)
    env = {"DEBIAN_FRONTEND": "noninteractive"}
    try:
        log.command(["apt-get", "update", "-q"], env=env)
        log.command(["apt-get", "install", "-q", "-y", "--no-install-recommends", *missing], env=env)
    finally:
        if ours:
            policy.unlink(missing_ok=True)


def install_uv(log: Log) -> None:
    """uv in an environment of its own, by pip."""
    folder = TOOLS / "uv"
    log.command([sys.executable, "-m", "venv", "--clear", str(folder)])
    log.command([str(folder / "bin" / "pip"), "install", "-q", "--disable-pip-version-check", f"uv=={UV_VERSION}"])


def _environment(log: Log, folder: Path, lock: str) -> None:
    env = {"UV_PYTHON_DOWNLOADS": "never"}
    if not (folder / "bin" / "python").exists():
        log.command([str(UV), "venv", "-q", "--clear", "--python", sys.executable, str(folder)], env=env)
    python = str(folder / "bin" / "python")
    log.command([str(UV), "pip", "sync", "-q", "--python", python, str(ROOT / "requirements" / lock)], env=env)


def install_services(log: Log) -> None:
    """.venv: the services, the command line and the tests' tools, and this checkout itself, editable."""
    _environment(log, ROOT / ".venv", "services.txt")
    python = str(ROOT / ".venv" / "bin" / "python")
    log.command([str(UV), "pip", "install", "-q", "--python", python, "--no-deps", "-e", str(ROOT)])


def install_ape(log: Log) -> None:
    """.venv-ape: the deploy scripts; its pins and those of the services exclude each other."""
    _environment(log, ROOT / ".venv-ape", "contracts.txt")


def install_npm(log: Log) -> None:
    """Contract tools by the lock file, without install scripts; the compiler's link for ape."""
    log.command(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"])
    log.command(["npm", "run", "--silent", "link-solc"])


def compile_contracts(log: Log) -> None:
    """forge build; the compiler's output is cached by content."""
    log.command([str(FORGE), "build", "--skip", "test"])


def set_up_criu(log: Log) -> None:
    """CRIU as hosts get it: built as a wheel, installed by pip; tried on this kernel."""
    log.command([sys.executable, str(ROOT / "scripts" / "criu_wheel.py"), "--prefix", str(TOOLS / "criu")])
    log.command([str(TOOLS / "criu" / "criu"), "check"])


def build_image(log: Log) -> None:
    """The trainer's image as a `docker save` archive."""
    log.command(["sh", str(ROOT / "scripts" / "make_image.sh")])


def check_machine() -> None:
    """What no step can mend, in one sentence."""
    if not (3, 11) <= sys.version_info[:2] < (3, 13):
        version = ".".join(map(str, sys.version_info[:2]))
        raise StepFailed(f"Python 3.11 or 3.12 is needed, this is {version}: run 'make PYTHON=python3.11 …'.")
    node = shutil.which("node")
    version = subprocess.run([node, "--version"], capture_output=True, text=True, check=False).stdout if node else ""
    if not version or int(version.strip().lstrip("v").split(".")[0]) < 20 or shutil.which("npm") is None:
        raise StepFailed(f"Node 20 or newer with npm is needed, found {version.strip() or 'none'}: install it first.")


def steps() -> list[Step]:
    """Everything a checkout needs, in the order of needs."""
    missing = ", ".join(missing_packages()).replace(",", "")
    requirements, scripts = ROOT / "requirements", ROOT / "scripts"
    site = ROOT / ".venv" / "bin"
    return [
        Step(
            "packages",
            "system packages",
            install_packages,
            optional=True,
            hint=NO_PACKAGES.format(missing=missing),
            salt=missing,
        ),
        Step("uv", "uv", install_uv, outputs=(UV,), salt=UV_VERSION),
        Step(
            "services",
            "Python packages of the services",
            install_services,
            ("uv",),
            (requirements / "services.txt", ROOT / "pyproject.toml"),
            (site / "everlease", site / "pytest"),
        ),
        Step(
            "npm",
            "contract tools",
            install_npm,
            (),
            (ROOT / "package-lock.json", ROOT / "package.json"),
            (ANVIL, FORGE),
        ),
        Step(
            "ape",
            "Python packages of the deploy scripts",
            install_ape,
            ("uv",),
            (requirements / "contracts.txt",),
            (ROOT / ".venv-ape/bin/ape",),
        ),
        Step(
            "contracts",
            "contracts, compiled",
            compile_contracts,
            ("npm",),
            (ROOT / "contracts", ROOT / "foundry.toml", ROOT / "package-lock.json", scripts / "solc.mjs"),
            (ROOT / "out" / "LeaseEscrow.sol",),
        ),
        Step(
            "criu",
            "CRIU as a wheel",
            set_up_criu,
            ("packages", "uv"),
            (scripts / "criu_wheel.py", scripts / "debian_archive.py"),
            (TOOLS / "criu" / "criu",),
            True,
            NO_CRIU,
        ),
        Step(
            "image",
            "container image of the demo",
            build_image,
            ("services", "packages"),
            (scripts / "make_image.sh", scripts / "image", scripts / "trainer"),
            (ROOT / ".build" / "image.tar",),
            True,
            NO_IMAGE,
        ),
    ]


def main() -> int:
    """Do what is left to do; 0 when the checkout is usable."""
    began = time.monotonic()
    try:
        check_machine()
        hints = run_steps(steps())
    except StepFailed as error:
        print(f"Set-up failed. {error}", file=sys.stderr)
        return 1
    for hint in hints:
        print(f"  note: {hint}")
    if time.monotonic() - began > 1:
        print(f"  set-up took {time.monotonic() - began:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
