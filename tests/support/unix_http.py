"""An HTTP server on a unix socket: what the engines of tests answer with."""

import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import TypeVar


class UnixAnswers(BaseHTTPRequestHandler):
    """Answers with a length, and says nothing of it."""

    def send(self, raw: bytes, kind: str = "application/json", status: int = 200) -> None:
        """A whole answer."""
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def address_string(self) -> str:
        return "unix"

    def log_message(self, *args: object) -> None:
        return


class UnixServer(socketserver.ThreadingUnixStreamServer):
    """Listens at ``path``."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, path: Path, answers: type[UnixAnswers]) -> None:
        super().__init__(str(path), answers)
        self.path = path


Server = TypeVar("Server", bound=UnixServer)


@contextmanager
def serving(made: Server) -> Iterator[Server]:
    """Serve until the block ends."""
    with made as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()
