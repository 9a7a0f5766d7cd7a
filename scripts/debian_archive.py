"""Packages out of Debian's archive, verified by apt, without touching the machine's own packages or sources."""

import re
import subprocess
from pathlib import Path

KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
DEFAULT_MIRROR = "http://deb.debian.org/debian"
CONF = """Dir::State "{work}/state";
Dir::State::status "{work}/status";
Dir::Cache "{work}/cache";
Dir::Etc::sourcelist "{work}/sources.list";
Dir::Etc::sourceparts "-";
APT::Architecture "amd64";
APT::Sandbox::User "root";
Acquire::Languages "none";
Acquire::Retries "3";
"""


class ArchiveFailed(Exception):
    """apt said no; the message is its last line."""


def mirror() -> str:
    """The Debian mirror that this machine uses, else Debian's own."""
    places = [Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*"))]
    text = "\n".join(place.read_text(encoding="utf-8") for place in places if place.is_file())
    found = re.search(r"^(?:URIs:|deb(?:\s+\[[^\]]*\])?)\s+(https?://\S+/debian)/?(?:\s|$)", text, re.MULTILINE)
    return found.group(1) if found else DEFAULT_MIRROR


def download(work: Path, suite: str, wanted: dict[str, str]) -> list[Path]:
    """Fetch each package (name → version) of ``suite``, or the version that the archive has by now; the .deb files.

    Raises ArchiveFailed.
    """
    for folder in ("state/lists/partial", "cache/archives/partial", "debs"):
        (work / folder).mkdir(parents=True, exist_ok=True)
    (work / "status").touch()
    (work / "sources.list").write_text(f"deb [signed-by={KEYRING}] {mirror()} {suite} main\n", encoding="ascii")
    (work / "conf").write_text(CONF.format(work=work), encoding="ascii")
    try:
        _apt(work, ["update", "-q"])
    except ArchiveFailed as error:
        # A machine whose clock is ahead of the mirror's refuses its Release file as expired; only then is that dropped.
        if "is expired" not in str(error) and "not valid" not in str(error):
            raise
        _apt(work, ["-o", "Acquire::Check-Valid-Until=false", "update", "-q"])
    try:
        _apt(work, ["download", "-q", *(f"{name}={version}" for name, version in wanted.items())])
    except ArchiveFailed:
        _apt(work, ["download", "-q", *wanted])
    return sorted((work / "debs").glob("*.deb"))


def _apt(work: Path, words: list[str]) -> None:
    env = {"APT_CONFIG": str(work / "conf"), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}
    done = subprocess.run(
        ["apt-get", *words], cwd=work / "debs", env=env, capture_output=True, text=True, check=False, timeout=600
    )
    failed = [line for line in done.stderr.splitlines() if line.startswith("E:")]
    if done.returncode or failed:
        raise ArchiveFailed(" ".join(failed)[-500:] or done.stderr[-300:])
