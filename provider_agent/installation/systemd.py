"""The few things that are asked of systemd, by its own command."""

import os
import shutil
from pathlib import Path

from provider_agent.installation.errors import CommandFailed, HostRefused
from provider_agent.runtime.commands import last_line, run

SYSTEM = Path("/run/systemd/system")
"""A folder that is there where systemd is PID 1 (sd_booted(3))."""
TIMEOUT_S = 4200.0


def require() -> None:
    """Raise HostRefused unless this is root on a machine that systemd runs."""
    if os.geteuid() != 0:
        raise HostRefused("a host is set up by root: run this with sudo")
    if not SYSTEM.is_dir() or shutil.which("systemctl") is None:
        raise HostRefused(
            "this machine is not run by systemd: start 'everlease provider run' from its own init system instead"
        )


def systemctl(*words: str) -> str:
    """What systemctl printed. Raises CommandFailed."""
    done = run(["systemctl", *words], timeout=TIMEOUT_S)
    if done.returncode:
        raise CommandFailed(" ".join(["systemctl", *words]), last_line(done.stderr))
    return done.stdout


def tried(*words: str) -> bool:
    """Whether systemctl succeeded."""
    return run(["systemctl", *words], timeout=TIMEOUT_S).returncode == 0


def shown(unit: str, name: str) -> str:
    """One property of a unit, "" where it has none."""
    return run(["systemctl", "show", "--property", name, "--value", unit]).stdout.strip()


def restarting(unit: str) -> bool:
    """Whether the unit is being stopped only to be started again: its job is a restart, neither a stop nor a reboot."""
    return job_type(run(["systemctl", "list-jobs", "--full", "--no-legend", "--plain"]).stdout, unit) == "restart"


def job_type(listed: str, unit: str) -> str | None:
    """The type of a unit's job in `systemctl list-jobs --no-legend`: "stop", "restart", …; None without a job."""
    for line in listed.splitlines():
        words = line.split()
        if len(words) >= 3 and words[1] == unit:
            return words[2]
    return None
