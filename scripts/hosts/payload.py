"""The job of every scenario: a static C program and busybox in an image that is written without any Docker daemon."""

import hashlib
import io
import json
import re
import shutil
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path

from everlease.cli.images import StoredImage
from everlease.store.base import BlockStore
from everlease.store.plain import upload_plain
from hosts.folders import locked
from hosts.images import BUILD, BuildFailed

REFERENCE = "everlease/chain:bench"
SOURCE = Path(__file__).parent / "payload" / "chain.c"
KEPT = "/work/chain.txt"
_LINE = re.compile(r"^(\d+) ([0-9a-f]{16}) (\d+) ([01])\s*$")


@dataclass(frozen=True, slots=True)
class Step:
    """A line that the job printed: its number, the hash so far, the host's boot clock in seconds, whether its copy was
    restored from a checkpoint.
    """

    number: int
    hash: str
    boot: float
    restored: bool


def parse(line: str) -> Step | None:
    """A step of a line, or None for another line."""
    found = _LINE.match(line)
    return Step(int(found[1]), found[2], int(found[3]) / 1e9, found[4] == "1") if found else None


def binary() -> Path:
    """The program, compiled on this machine; cached by its source. Raises BuildFailed."""
    digest = hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:12]
    target = BUILD / "payload" / digest / "chain"
    with locked(target.with_suffix(".lock")):
        if not target.exists():
            part = target.with_suffix(".part")
            argv = ["gcc", "-O2", "-Wall", "-static", "-o", str(part), str(SOURCE)]
            done = subprocess.run(argv, capture_output=True, text=True, check=False)
            if done.returncode:
                raise BuildFailed(f"the job could not be compiled: {done.stderr.strip()}")
            part.rename(target)
    return target


class ArchiveImage:
    """The image as a `docker save` archive: what `launch` takes instead of a Docker daemon's images."""

    def __init__(self) -> None:
        self.archive = binary().with_name("image.tar")
        layer = self._layer()
        config = json.dumps(
            {
                "architecture": "amd64",
                "os": "linux",
                "config": {"Entrypoint": [], "Cmd": ["/chain"], "WorkingDir": "/work", "Env": ["PATH=/bin:/"]},
                "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
                "history": [{"created_by": "bench"}],
            },
            sort_keys=True,
        ).encode()
        self._digest = hashlib.sha256(config).hexdigest()
        manifest = [{"Config": f"{self._digest}.json", "RepoTags": [REFERENCE], "Layers": ["layer/layer.tar"]}]
        files = {
            "layer/layer.tar": layer,
            f"{self._digest}.json": config,
            "manifest.json": json.dumps(manifest).encode(),
        }
        self.archive.write_bytes(_tar(files))

    def local_id(self, reference: str) -> str:
        """The image's id."""
        assert reference == REFERENCE
        return f"sha256:{self._digest}"

    def upload(self, reference: str, store: BlockStore, progress: object) -> StoredImage:
        """Store the archive as plain blocks; blocks that the store has are not sent again."""
        stored = upload_plain(store, self.archive)
        return StoredImage(self.local_id(reference), stored.cid, stored.size, "0")

    @staticmethod
    def _layer() -> bytes:
        busybox = shutil.which("busybox")
        if busybox is None:
            raise BuildFailed("busybox is missing: install busybox-static")
        files = {"chain": binary().read_bytes(), "bin/busybox": Path(busybox).read_bytes()}
        links = dict.fromkeys(("bin/sh", "bin/cat", "bin/dd", "bin/nc", "bin/sleep", "bin/wget", "bin/ping"), "busybox")
        return _tar(files, links, folders=("bin", "work", "tmp", "etc"))


def _tar(files: dict[str, bytes], links: dict[str, str] | None = None, folders: tuple[str, ...] = ()) -> bytes:
    """A tar whose bytes follow from its content alone."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name in folders:
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if name == "tmp" else 0o755
            archive.addfile(entry)
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), 0o755
            archive.addfile(entry, io.BytesIO(data))
        for name, target in (links or {}).items():
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = tarfile.SYMTYPE, target
            archive.addfile(entry)
    return out.getvalue()
