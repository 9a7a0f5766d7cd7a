"""The API version that is spoken with an engine: the highest both sides know, or one sentence.

The engines here are written from Docker's documentation of /version and of what Docker 29 accepts (1.44 at least): a
request with a version outside the range gets a 400. No answer was recorded from a Docker 29, and none was run.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from docker.errors import APIError

from everlease import docker_api
from everlease.cli.errors import CliError
from everlease.cli.images import LocalImages
from provider_agent.runtime import daemon
from provider_agent.runtime.errors import DaemonUnsupported
from tests.support.unix_http import UnixAnswers, UnixServer, serving

ENGINE_20 = {"Version": "20.10.24", "ApiVersion": "1.41", "MinAPIVersion": "1.12"}
ENGINE_29 = {"Version": "29.0.1", "ApiVersion": "1.52", "MinAPIVersion": "1.44"}


class Answers(UnixAnswers):
    """Those of an engine with the server's range of versions; notes the versions that were asked for."""

    def do_GET(self) -> None:
        engine: Any = self.server
        asked = re.match(r"/v([\d.]+)/", self.path)
        if asked:
            engine.asked.add(asked[1])
        said: dict[str, Any] = engine.version
        low, high = (tuple(map(int, said[name].split("."))) for name in ("MinAPIVersion", "ApiVersion"))
        wanted = tuple(map(int, asked[1].split("."))) if asked else low
        if low <= wanted <= high:
            self._answer(200, said if self.path.endswith("/version") else {"Runtimes": {}})
        else:
            age = "old. Minimum" if wanted < low else "new. Maximum"
            self._answer(
                400, {"message": f"client version {asked and asked[1]} is too {age} supported API version is …"}
            )

    def do_POST(self) -> None:
        engine: Any = self.server
        engine.bodies.append(self.rfile.read(int(self.headers.get("Content-Length", 0))))
        self.do_GET()

    def _answer(self, status: int, body: dict[str, Any]) -> None:
        self.send(json.dumps(body).encode(), status=status)


class Engine(UnixServer):
    def __init__(self, path: Path, version: dict[str, str]) -> None:
        super().__init__(path, Answers)
        self.version, self.asked = version, set[str]()
        self.bodies: list[bytes] = []


@pytest.fixture
def engine(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Engine]:
    with serving(Engine(tmp_path / "docker.sock", request.param)) as made:
        yield made


@pytest.mark.parametrize("engine", [ENGINE_29], indirect=True)
def test_an_engine_that_refuses_older_apis_is_spoken_to_in_its_own(engine: Engine) -> None:
    client = daemon.connect(engine.path)
    assert client.info() == {"Runtimes": {}}
    client.close()
    LocalImages(engine.path).close()
    assert engine.asked == {docker_api.NEWEST_API}


@pytest.mark.parametrize("engine", [ENGINE_20], indirect=True)
def test_the_oldest_engine_is_spoken_to_in_its_newest(engine: Engine) -> None:
    client = daemon.connect(engine.path)
    client.info()
    client.close()
    assert engine.asked == {"1.41"}


@pytest.mark.parametrize(
    ("engine", "other", "spoken"),
    [(ENGINE_20, ENGINE_29, docker_api.NEWEST_API), (ENGINE_29, ENGINE_20, "1.41")],
    indirect=["engine"],
)
def test_an_engine_that_was_exchanged_is_spoken_to_in_its_own(
    engine: Engine, other: dict[str, str], spoken: str
) -> None:
    client = daemon.connect(engine.path)
    engine.version = other
    assert client.api.create_volume("x") == {"Runtimes": {}}, "the refused request is repeated, its body too"
    assert len(set(engine.bodies)) == 1
    assert len(engine.bodies) == 2
    engine.asked.clear()
    assert client.info() == {"Runtimes": {}}
    assert engine.asked == {spoken}, "and no other is asked in the old version"
    client.close()


@pytest.mark.parametrize("engine", [ENGINE_20], indirect=True)
def test_a_version_is_agreed_upon_anew_though_the_old_one_is_served(engine: Engine) -> None:
    client = daemon.connect(engine.path)
    engine.version = {**ENGINE_29, "MinAPIVersion": "1.24"}
    client.negotiate()
    engine.asked.clear()
    client.info()
    client.close()
    assert engine.asked == {docker_api.NEWEST_API}


@pytest.mark.parametrize("engine", [ENGINE_20], indirect=True)
def test_an_engine_that_came_and_has_no_common_version_says_so_itself(engine: Engine) -> None:
    client = daemon.connect(engine.path)
    engine.version = TOO_NEW
    with pytest.raises(APIError, match=r"client version 1\.41 is too old"):
        client.info()
    client.close()


TOO_OLD = {"Version": "19.03.15", "ApiVersion": "1.40", "MinAPIVersion": "1.12"}
TOO_NEW = {"Version": "41.0.0", "ApiVersion": "1.99", "MinAPIVersion": "1.90"}


@pytest.mark.parametrize(
    ("engine", "advice"),
    [
        (TOO_OLD, r"Docker 19\.03\.15 speaks API 1\.40 at most: update it"),
        (TOO_NEW, r"1\.90 at least.*update Everlease"),
    ],
    indirect=["engine"],
)
def test_an_engine_without_a_common_version_gets_one_sentence(engine: Engine, advice: str) -> None:
    with pytest.raises(DaemonUnsupported, match=advice):
        daemon.connect(engine.path)
    with pytest.raises(CliError, match=advice):
        LocalImages(engine.path)


def test_versions_are_compared_as_numbers() -> None:
    assert docker_api.choose("1.100", "1.9", "x") == docker_api.NEWEST_API
