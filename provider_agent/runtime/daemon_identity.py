"""Which Docker daemon answers at a socket: one that was started anew is another, and so is any after a reboot."""

import socket as unix
import struct
from pathlib import Path
from subprocess import SubprocessError

from provider_agent.runtime.commands import run

ANSWER_S = 3.0
_CREDENTIALS = struct.Struct("3i")
_PING = b"GET /_ping HTTP/1.0\r\nHost: docker\r\n\r\n"
_UNIT = "docker.service"


def daemon_identity(socket: Path) -> str | None:
    """Boot, pid and birth of the daemon that answers at this socket, as one word; None while none answers."""
    try:
        with unix.socket(unix.AF_UNIX) as link:
            link.settimeout(ANSWER_S)
            link.connect(str(socket))
            pid, _, _ = _CREDENTIALS.unpack(link.getsockopt(unix.SOL_SOCKET, unix.SO_PEERCRED, _CREDENTIALS.size))
            link.sendall(_PING)
            if b" 200 " not in link.recv(64):
                return None
    except OSError:
        return None
    # With socket activation it is PID 1 that listens, for whichever daemon it starts.
    return born(main_pid(_UNIT) if pid == 1 else pid)


def born(pid: int) -> str | None:
    """Boot, pid and birth (clock ticks since the boot) of a process; None where there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except OSError:
        return None
    return f"{boot_id()}/{pid}/{stat.rpartition(')')[2].split()[19]}"


def boot_id() -> str:
    """The kernel's name for this boot."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()


def main_pid(unit: str) -> int:
    """The main process of a systemd unit; 0, which is nobody's, where it doesn't run."""
    pid = _systemctl("show", unit, "--property=MainPID", "--value")
    return int(pid) if pid.isdigit() else 0


def shutting_down() -> bool:
    """Whether systemd is on its way down: it ends containers itself then, side by side with Docker."""
    return Path("/run/systemd/system").is_dir() and _systemctl("is-system-running") == "stopping"


def _systemctl(*words: str) -> str:
    """What it printed; nothing where it isn't there or doesn't answer."""
    try:
        return run(["systemctl", *words], timeout=5).stdout.strip()
    except (OSError, SubprocessError):
        return ""
