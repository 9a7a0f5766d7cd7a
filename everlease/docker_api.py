"""A client of a Docker engine that speaks the newest API both sides know, also once another engine took its place."""

import re
from typing import Any

import docker
from docker.constants import DEFAULT_DOCKER_API_VERSION
from requests import PreparedRequest, Response

_VERSION = re.compile(r"/v[\d.]+/")
OLDEST_API = "1.41"
"""Docker 20.10's, the oldest engine that is supported."""
NEWEST_API = DEFAULT_DOCKER_API_VERSION
"""What the client library was written against; engines keep serving it (29 still serves 1.44)."""


class EngineUnsupported(Exception):
    """The engine and this program have no API version in common; one sentence that says what to do."""


class _Api(docker.APIClient):
    """Where an engine refuses the version as too old or too new, one is agreed upon anew and the request repeated."""

    def negotiate(self) -> None:
        """Agree upon a version. Raises EngineUnsupported, DockerException, OSError, RequestException."""
        # Asked without a version: an engine answers that whatever it serves.
        said = self.version(api_version=False)
        newest, oldest, engine = (str(said.get(name, "")) for name in ("ApiVersion", "MinAPIVersion", "Version"))
        self._version = choose(newest, oldest, engine)

    def send(self, request: PreparedRequest, **options: Any) -> Response:
        response = super().send(request, **options)
        if not _refuses_version(response):
            return response
        try:
            self.negotiate()
        except EngineUnsupported:
            return response
        if hasattr(request.body, "__next__"):
            return response  # a part of the stream is read
        request.url = _VERSION.sub(f"/v{self._version}/", str(request.url), count=1)
        return super().send(request, **options)


class Client(docker.DockerClient):
    """A client whose version follows the engine, which may be exchanged under it by an update."""

    api: _Api

    def __init__(self, base_url: str, timeout: int) -> None:
        self.api = _Api(base_url=base_url, timeout=timeout, version=NEWEST_API)

    def negotiate(self) -> None:
        """Agree upon a version anew. Raises EngineUnsupported, DockerException, OSError, RequestException."""
        self.api.negotiate()


def connect(base_url: str, *, timeout: int) -> Client:
    """A client of the engine at this URL. Raises EngineUnsupported, DockerException, OSError, RequestException."""
    client = Client(base_url, timeout)
    try:
        client.negotiate()
    except BaseException:
        client.close()
        raise
    return client


def choose(newest: str, oldest: str, engine: str) -> str:
    """The highest API version of ours that lies within an engine's range. Raises EngineUnsupported."""
    if _order(newest) < _order(OLDEST_API):
        raise EngineUnsupported(f"Docker {engine} speaks API {newest or '?'} at most: update it to 20.10 or newer")
    if _order(oldest) > _order(NEWEST_API):
        raise EngineUnsupported(
            f"Docker {engine} speaks API {oldest} at least, newer than {NEWEST_API}: update Everlease"
        )
    return min(newest, NEWEST_API, key=_order)


def _order(version: str) -> tuple[int, ...]:
    return tuple(int(part) if part.isdigit() else 0 for part in version.split("."))


def _refuses_version(response: Response) -> bool:
    """Whether this is an engine's word that the client's version is too old or too new for it."""
    if response.status_code != 400:
        return False
    return b"client version" in response.content and b"supported API version" in response.content
