"""Archives that `docker save` writes: which image one holds, and the same image in the one form every Docker loads.

An image's identity here is the digest of its config, which names its layers by the digests of their content. It is what
Docker's overlay2 store calls the image's id; containerd's store calls it by the digest of a manifest, which differs
from host to host, so nothing but the config's digest leaves a host.
"""

import hashlib
import json
import posixpath
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MAX_JSON_BYTES = 8 << 20
MAX_LAYERS, MAX_MEMBERS = 512, 100_000
CHUNK_BYTES = 1 << 20
BLOCK = 512


class ArchiveRefused(Exception):
    """The file is no archive of exactly one image; one sentence."""


@dataclass(frozen=True, slots=True)
class ImageArchive:
    """An archive with one image. ``digest`` (sha256:…) is that of ``config``, ``layers`` are (offset, bytes) in the
    file.
    """

    path: Path
    digest: str
    config: bytes
    layers: tuple[tuple[int, int], ...]

    @property
    def user(self) -> str:
        """Whose processes a container of it has: the image's USER, "0" where it names none."""
        settings = json.loads(self.config).get("config")
        return str((isinstance(settings, dict) and settings.get("User")) or "0")

    def retagged(self, name: str) -> Iterator[bytes]:
        """The image as an archive that carries ``name`` and no other: a stranger's must not replace a host's own tags.

        It has config, layers and manifest.json alone, which every Docker's every image store reads alike.
        """
        config = f"{self.digest.removeprefix('sha256:')}.json"
        names = [f"{number}/layer.tar" for number in range(len(self.layers))]
        yield from _member(config, self.config)
        with self.path.open("rb") as file:
            for layer, (offset, size) in zip(names, self.layers, strict=True):
                yield _header(layer, size)
                file.seek(offset)
                left = size
                while left:
                    chunk = file.read(min(CHUNK_BYTES, left))
                    if not chunk:
                        raise ArchiveRefused(f"{self.path.name} has become shorter")
                    left -= len(chunk)
                    yield chunk
                yield bytes(-size % BLOCK)
        listed = [{"Config": config, "RepoTags": [name], "Layers": names}]
        yield from _member("manifest.json", json.dumps(listed).encode())
        yield bytes(2 * BLOCK)


def read_archive(path: Path) -> ImageArchive:
    """Find the one image in an archive, written by any Docker from any image store. Raises ArchiveRefused, OSError."""
    try:
        with tarfile.open(path, "r:") as archive:
            members: dict[str, tarfile.TarInfo] = {}
            for member in archive:
                members[posixpath.normpath(member.name)] = member
                if len(members) > MAX_MEMBERS:
                    raise ArchiveRefused(f"{path.name} has more than {MAX_MEMBERS} members")
            listed = json.loads(_content(archive, members, "manifest.json"))
            if not isinstance(listed, list) or len(listed) != 1:
                raise ArchiveRefused(f"{path.name} does not hold exactly one image")
            config = _content(archive, members, str(listed[0]["Config"]))
            layers = [_resolve(members, str(layer)) for layer in listed[0]["Layers"] or []]
            diff_ids = json.loads(config)["rootfs"]["diff_ids"] or []
    except (tarfile.TarError, ValueError, KeyError, TypeError, EOFError) as error:
        raise ArchiveRefused(f"{path.name} is no archive of an image ({error})") from error
    if len(layers) != len(diff_ids) or len(layers) > MAX_LAYERS:
        raise ArchiveRefused(f"{path.name} does not hold the layers of its image")
    digest = f"sha256:{hashlib.sha256(config).hexdigest()}"
    return ImageArchive(path, digest, config, tuple((layer.offset_data, layer.size) for layer in layers))


def _resolve(members: dict[str, tarfile.TarInfo], name: str) -> tarfile.TarInfo:
    """A regular member by its name; Docker up to 24 writes a layer that repeats as a link. Raises KeyError."""
    member = members[posixpath.normpath(name)]
    if member.issym():
        member = members[posixpath.normpath(posixpath.join(posixpath.dirname(name), member.linkname))]
    if not member.isreg() or member.issparse():
        raise KeyError(f"{name} is no plain file")
    return member


def _content(archive: tarfile.TarFile, members: dict[str, tarfile.TarInfo], name: str) -> bytes:
    member = _resolve(members, name)
    if member.size > MAX_JSON_BYTES:
        raise KeyError(f"{name} is larger than {MAX_JSON_BYTES} bytes")
    stream = archive.extractfile(member)
    assert stream is not None
    return stream.read()


def _header(name: str, size: int) -> bytes:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = size, 0o644
    return entry.tobuf(tarfile.PAX_FORMAT)


def _member(name: str, content: bytes) -> Iterator[bytes]:
    yield _header(name, len(content))
    yield content + bytes(-len(content) % BLOCK)
