"""A Docker engine with one small image, over a unix socket: as much of its API as a launch asks for."""

import hashlib
import io
import json
import re
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.unix_http import UnixAnswers, UnixServer, serving

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


class _Answers(UnixAnswers):
    def do_GET(self) -> None:
        engine: Any = self.server
        path = re.sub(r"^/v[\d.]+", "", self.path)
        if path == "/version":
            self._answer({"Version": "26.1.5", "ApiVersion": "1.45", "MinAPIVersion": "1.24"})
        elif path.endswith("/json"):
            self._answer({"Id": engine.image_id, "RepoTags": [REFERENCE]})
        elif "/get" in path:
            engine.saved += 1
            self.send(engine.archive, "application/x-tar")

    def _answer(self, body: dict[str, Any]) -> None:
        self.send(json.dumps(body).encode())


class Engine(UnixServer):
    """``saved``: how often the image was asked for, which a launch does to upload it."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, _Answers)
        self.saved = 0
        self.build(b"weights")

    def build(self, content: bytes) -> None:
        """Give the image another content."""
        self.image_id, self.archive = archive(content)


@contextmanager
def running_engine(path: Path) -> Iterator[Engine]:
    """Serve at this socket until the block ends."""
    with serving(Engine(path)) as engine:
        yield engine
