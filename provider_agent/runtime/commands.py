"""Run a host command, optionally inside a network namespace, and keep what it said."""

import subprocess
from pathlib import Path


def in_netns(netns: Path | None, argv: list[str]) -> list[str]:
    """The argument list that runs argv in the network namespace at this path (nsenter keeps /sys as it is; `ip netns
    exec` doesn't).
    """
    return argv if netns is None else ["nsenter", f"--net={netns}", "--", *argv]


def run(
    argv: list[str], *, netns: Path | None = None, text: str = "", timeout: float = 30.0
) -> subprocess.CompletedProcess[str]:
    """Run to the end with `text` as its input; never raises for an exit code. Raises subprocess.TimeoutExpired."""
    return subprocess.run(
        in_netns(netns, argv), capture_output=True, text=True, check=False, input=text, timeout=timeout
    )


def last_line(text: str, default: str = "no message") -> str:
    """The last line with content, at most 300 characters."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][-300:] if lines else default
