"""Images on this host by the digest of their config, which every host agrees on, whichever store Docker keeps them in.

Docker's overlay2 store calls an image by that digest itself. containerd's calls it by the digest of a manifest, which
Docker makes when it loads the archive; that name is noted here when we load one.

  STATE/images.json   {config digest: local id} of images that were loaded here
"""

import json
import threading
from http import HTTPStatus
from pathlib import Path
from typing import Any

import docker
from docker.errors import APIError, DockerException, ImageNotFound
from requests.exceptions import RequestException

from everlease.image_archive import ArchiveRefused, ImageArchive
from provider_agent.runtime.errors import ImageMissing
from provider_agent.runtime.everlease_runc import replace_file

REPOSITORY = "everlease/image"


class LocalImages:
    """The images of one Docker daemon. Methods block and may be called from several threads."""

    def __init__(self, client: docker.DockerClient, state: Path) -> None:
        self._client, self._notes = client, state / "images.json"
        self._lock = threading.Lock()

    def find(self, digest: str) -> str | None:
        """Docker's own id here of the image with this config digest (sha256:…), None when it is not on this host."""
        if self._exists(digest):
            return digest
        local = self._read().get(digest)
        return local if local is not None and self._exists(local) else None

    def load(self, archive: ImageArchive) -> str:
        """Load an archive's image under a name of ours; its id here. Docker checks that the layers are the config's.

        Raises ImageMissing.
        """
        name = f"{REPOSITORY}:{archive.digest.removeprefix('sha256:')}"
        try:
            # Its type says bytes, but the client streams whatever can be iterated.
            raw: Any = archive.retagged(name)
            self._client.images.load(raw)
            local = str(self._client.images.get(name).id)
            with self._lock:
                self._note(archive.digest, local)
        except (OSError, ArchiveRefused, DockerException, RequestException) as error:
            raise ImageMissing(str(archive.path), str(error)) from error
        return local

    def remove_all(self, *further: str) -> list[str]:
        """Take all names of ours away, and of further repositories; those that are still in use, which stay.

        An image with no other name goes with it. Raises DockerException, RequestException.
        """
        kept = []
        for repository in (REPOSITORY, *further):
            listed = self._client.api.images(repository)
            for name in sorted({name for image in listed for name in image["RepoTags"] or ()}):
                try:
                    self._client.api.remove_image(name)
                except ImageNotFound:
                    continue
                except APIError as error:
                    if error.status_code != HTTPStatus.CONFLICT:
                        raise
                    kept.append(name)
        with self._lock:
            self._notes.unlink(missing_ok=True)
        return kept

    def _exists(self, local: str) -> bool:
        try:
            return str(self._client.images.get(local).id) == local
        except ImageNotFound:
            return False

    def _note(self, digest: str, local: str) -> None:
        kept = {known: at for known, at in self._read().items() if self._exists(at)}
        replace_file(str(self._notes), json.dumps(kept | {digest: local}))

    def _read(self) -> dict[str, str]:
        try:
            found: dict[str, str] = json.loads(self._notes.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return {}
        return found
