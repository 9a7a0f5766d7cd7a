"""QEMU's monitor, spoken over its unix socket (docs/interop/qmp-spec.txt of QEMU)."""

import json
import socket
from pathlib import Path


class MonitorError(Exception):
    """QEMU refused a command or is gone."""


class Monitor:
    """One command per connection: nothing is kept open."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def ask(self, command: str, **arguments: object) -> object:
        """Send a command and return what it returned. Raises MonitorError."""
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(20)
                connection.connect(str(self._path))
                with connection.makefile("rwb") as lines:
                    lines.readline()  # the greeting
                    self._call(lines, "qmp_capabilities", {})
                    return self._call(lines, command, arguments)
        except (OSError, ValueError) as error:
            raise MonitorError(f"the monitor {self._path} did not answer '{command}': {error}") from None

    @staticmethod
    def _call(lines: "socket.SocketIO", command: str, arguments: dict[str, object]) -> object:
        lines.write(json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n")
        lines.flush()
        while True:
            line = lines.readline()
            if not line:
                raise MonitorError(f"QEMU closed the connection at '{command}'")
            answer = json.loads(line)
            if "error" in answer:
                raise MonitorError(f"'{command}': {answer['error'].get('desc')}")
            if "return" in answer:
                return answer["return"]
