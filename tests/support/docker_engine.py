"""A Docker engine with one small image, over a unix socket: as much of its API as a launch asks for."""

import hashlib
import io
import json
import re
import socketserver
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

REFERENCE = "trainer:local"


def archive(content: bytes) -> tuple[str, bytes]:
    """An image with one file: its id, and what `docker save` writes."""
    layer = _tar({"data": content})
    diff_id = f"sha256:{hashlib.sha256(layer).hexdigest()}"
    config = json.dumps({"rootfs": {"type": "layers", "diff_ids": [diff_id]}, "config": {}}).encode()
    digest = hashlib.sha256(config).hexdigest()
    listed = [{"Config": f"{digest}.json", "RepoTags": [REFERENCE], "Layers": ["0/layer.tar"]}]
    files = {f"{digest}.json": config, "0/layer.tar": layer, "manifest.json": json.dumps(listed).encode()}
    return f"sha256:{digest}", _tar(files)


def _tar(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return out.getvalue()


class _Answers(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        engine: Any = self.server
        path = re.sub(r"^/v[\d.]+", "", self.path)
        if path == "/version":
            self._answer({"Version": "26.1.5", "ApiVersion": "1.45", "MinAPIVersion": "1.24"})
        elif path.endswith("/json"):
            self._answer({"Id": engine.image_id, "RepoTags": [REFERENCE]})
        elif "/get" in path:
            engine.saved += 1
            self._send(engine.archive, "application/x-tar")

    def _answer(self, body: dict[str, Any]) -> None:
        self._send(json.dumps(body).encode(), "application/json")

    def _send(self, raw: bytes, kind: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def address_string(self) -> str:
        return "unix"

    def log_message(self, *args: object) -> None:
        return


class Engine(socketserver.ThreadingUnixStreamServer):
    """``saved``: how often the image was asked for, which a launch does to upload it."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, path: Path) -> None:
        super().__init__(str(path), _Answers)
        self.path, self.saved = path, 0
        self.build(b"weights")

    def build(self, content: bytes) -> None:
        """Give the image another content."""
        self.image_id, self.archive = archive(content)


@contextmanager
def running_engine(path: Path) -> Iterator[Engine]:
    """Serve at this socket until the block ends."""
    with Engine(path) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()
