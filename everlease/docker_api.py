"""A client of a Docker engine that speaks the newest API both sides know."""

import docker
from docker.constants import DEFAULT_DOCKER_API_VERSION

OLDEST_API = "1.41"
"""Docker 20.10's, the oldest engine that is supported."""
NEWEST_API = DEFAULT_DOCKER_API_VERSION
"""What the client library was written against; engines keep serving it (29 still serves 1.44)."""


class EngineUnsupported(Exception):
    """The engine and this program have no API version in common; one sentence that says what to do."""


def connect(base_url: str, *, timeout: int) -> docker.DockerClient:
    """A client of the engine at this URL. Raises EngineUnsupported, DockerException, OSError, RequestException."""
    probe = docker.DockerClient(base_url=base_url, timeout=timeout, version=NEWEST_API)
    try:
        # Asked without a version: an engine answers that whatever it serves.
        said = probe.api.version(api_version=False)
    finally:
        probe.close()
    version = choose(str(said.get("ApiVersion", "")), str(said.get("MinAPIVersion", "")), str(said.get("Version", "")))
    return docker.DockerClient(base_url=base_url, timeout=timeout, version=version)


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
