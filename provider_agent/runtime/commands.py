"""Run a host command, optionally inside a network namespace, and keep what it said."""

import subprocess
from collections.abc import Iterable
from pathlib import Path

TREE_TIMEOUT_S = 1800.0


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
        in_netns(netns, argv),
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
        input=text,
        timeout=timeout,
    )


def remove_tree(path: Path) -> None:
    """Delete a folder that a job wrote; nothing happens when it is gone.

    Not shutil's: folders nested thousands deep exhaust its recursion and its descriptors.
    """
    run(["rm", "-rf", "--one-file-system", "--", str(path)], timeout=TREE_TIMEOUT_S)


def tree_bytes(paths: Iterable[Path]) -> int:
    """Bytes on disk below these folders, symlinks not followed, what vanishes meanwhile left out."""
    done = run(["du", "-s", "-B1", "-x", "--", *map(str, paths)], timeout=TREE_TIMEOUT_S)
    return sum(int(line.split("\t")[0]) for line in done.stdout.splitlines())


def last_line(text: str, default: str = "no message") -> str:
    """The last line with content, at most 300 characters."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][-300:] if lines else default
