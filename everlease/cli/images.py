"""A local image's way into the store: found by Docker, saved as an archive, named by its config, stored as plain
blocks.
"""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from docker.errors import APIError, DockerException, ImageNotFound
from requests.exceptions import RequestException

from everlease import docker_api
from everlease.cli.errors import CliError, ExitCode
from everlease.cli.market import Market
from everlease.domain.manifest import CID
from everlease.image_archive import ArchiveRefused, read_archive
from everlease.store.base import BlockStore
from everlease.store.http import HttpBlockStore
from everlease.store.plain import upload_plain
from everlease.wire.http import StoreTokenOut

DEFAULT_SOCKET = Path("/var/run/docker.sock")


@dataclass(frozen=True, slots=True)
class StoredImage:
    """An image in the store. ``digest`` is its config's, the same on every host, ``size`` the archive's bytes, ``user``
    its USER.
    """

    digest: str
    manifest: CID
    size: int
    user: str


class LocalImages:
    """The images of one Docker daemon."""

    def __init__(self, socket: Path | None) -> None:
        self._socket = socket or DEFAULT_SOCKET
        if not self._socket.exists():
            raise CliError(
                ExitCode.UNAVAILABLE,
                f"there is no Docker daemon at {self._socket}: start it, or name its socket with --docker-socket",
            )
        try:
            self._client = docker_api.connect(f"unix://{self._socket}", timeout=600)
        except docker_api.EngineUnsupported as error:
            raise CliError(
                ExitCode.UNAVAILABLE, f"the Docker daemon at {self._socket} can't be used: {error}"
            ) from error
        except (DockerException, RequestException, OSError) as error:
            raise CliError(
                ExitCode.UNAVAILABLE, f"the Docker daemon at {self._socket} does not answer: {error}"
            ) from error

    def local_id(self, reference: str) -> str:
        """Docker's id of an image, which may be good for this daemon alone. Raises CliError where Docker lacks it."""
        try:
            image = self._client.images.get(reference)
        except ImageNotFound:
            raise CliError(
                ExitCode.NOT_FOUND,
                f"Docker has no image {reference!r}: build or pull it first ('docker pull {reference}')",
            ) from None
        except APIError as error:
            raise CliError(ExitCode.UNAVAILABLE, f"Docker refused: {error.explanation}") from error
        return str(image.id)

    def load(self, archive: Path) -> None:
        """Let the daemon have the images in a `docker save` archive."""
        with archive.open("rb") as file:
            self._client.images.load(file)

    def upload(self, reference: str, store: BlockStore, progress: Callable[[int], None]) -> StoredImage:
        """Save the image and store its archive; blocks that the store has are not sent again. Raises CliError."""
        self.local_id(reference)
        with tempfile.NamedTemporaryFile(prefix="everlease-image-", suffix=".tar") as archive:
            # By name, so that the archive carries the tag; a digest alone would lose it.
            for chunk in self._client.images.get(reference).save(named=reference if ":" in reference else True):
                archive.write(chunk)
            archive.flush()
            try:
                saved = read_archive(Path(archive.name))
            except ArchiveRefused as error:
                raise CliError(
                    ExitCode.UNAVAILABLE, f"Docker saved {reference!r} in a form unknown: {error}"
                ) from error
            stored = upload_plain(store, Path(archive.name), progress=progress)
        return StoredImage(saved.digest, stored.cid, stored.size, saved.user)

    def close(self) -> None:
        """Close the connection."""
        self._client.close()


def upload_image(market: Market, images: LocalImages, reference: str, note: Callable[[str], None]) -> StoredImage:
    """The image's archive in the store, by a token of the marketplace."""
    grant = market.post("/v1/store/tokens", StoreTokenOut)
    store = HttpBlockStore(grant.store_url, lambda: grant.store_token)
    try:
        return images.upload(reference, store, lambda done: note(f"image {reference}: {done >> 20} MiB stored"))
    finally:
        store.close()
