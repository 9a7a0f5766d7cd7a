"""Which daemon answers at a socket."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from provider_agent.runtime.daemon_identity import boot_id, born, daemon_identity, main_pid

SERVER = """
import socket, sys
from pathlib import Path
Path(sys.argv[1]).unlink(missing_ok=True)
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen()
while True:
    link, _ = listener.accept()
    link.recv(1000)
    link.sendall(f"HTTP/1.0 {sys.argv[2]} x\\r\\n\\r\\nOK".encode())
    link.close()
"""


@contextmanager
def daemon(socket: Path, status: str = "200") -> Iterator[int]:
    """Something that answers a ping as Docker does; its pid."""
    process = subprocess.Popen([sys.executable, "-c", SERVER, str(socket), status])
    try:
        yield process.pid
    finally:
        process.kill()
        process.wait()


def identity(socket: Path) -> str:
    until = time.monotonic() + 10
    while time.monotonic() < until:
        if (found := daemon_identity(socket)) is not None:
            return found
        time.sleep(0.05)
    raise AssertionError("nobody answers")


def test_a_daemon_is_its_boot_its_pid_and_its_birth_and_another_is_another(tmp_path: Path) -> None:
    socket = tmp_path / "docker.sock"
    assert daemon_identity(socket) is None
    with daemon(socket) as pid:
        first = identity(socket)
        assert first.startswith(f"{boot_id()}/{pid}/")
        assert identity(socket) == first
    assert daemon_identity(socket) is None, "the socket is there, but nobody answers"
    with daemon(socket):
        assert identity(socket) != first


def test_a_daemon_that_is_on_its_way_down_is_none(tmp_path: Path) -> None:
    with daemon(tmp_path / "docker.sock", "503"):
        time.sleep(0.5)
        assert daemon_identity(tmp_path / "docker.sock") is None


def test_a_unit_that_does_not_run_has_no_process() -> None:
    assert main_pid("everlease-no-such.service") == 0
    assert born(0) is None
