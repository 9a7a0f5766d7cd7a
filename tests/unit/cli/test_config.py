"""Precedence of settings, and the sentence for each way to get them wrong."""

from pathlib import Path

import pytest

from everlease.cli.config import DEFAULT_MARKET, resolve
from everlease.cli.errors import CliError, ExitCode


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    project, user = tmp_path / "project" / "deep", tmp_path / "user.toml"
    project.mkdir(parents=True)
    (project.parent / "everlease.toml").write_text('market_url = "http://project"\nkey_file = "keys/me.json"\n')
    user.write_text('market_url = "http://user"\nrpc_url = "http://user-rpc"\n')
    return project, user


def test_flag_beats_environment_beats_project_beats_user(folders: tuple[Path, Path]) -> None:
    project, user = folders
    environment = {"EVERLEASE_MARKET_URL": "http://environment"}
    assert resolve({"market_url": "http://flag"}, environment, project, user).market_url == "http://flag"
    assert resolve({"market_url": None}, environment, project, user).market_url == "http://environment"
    found = resolve({}, {}, project, user)
    assert (found.market_url, found.rpc_url) == ("http://project", "http://user-rpc")
    assert resolve({}, {}, user.parent / "nowhere", user).market_url == "http://user"
    assert resolve({}, {}, user.parent / "nowhere", user.parent / "none").market_url == DEFAULT_MARKET


def test_paths_of_a_file_are_relative_to_it(folders: tuple[Path, Path]) -> None:
    project, user = folders
    assert resolve({}, {}, project, user).key_file == project.parent / "keys/me.json"


@pytest.mark.parametrize(
    ("text", "says"),
    [("a = ", "can't be read"), ('colour = "red"', "'colour'"), ('private_key = "0x1"', "'private_key'")],
)
def test_a_bad_file_is_named(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "everlease.toml").write_text(text)
    with pytest.raises(CliError, match=says) as refused:
        resolve({}, {}, tmp_path, tmp_path / "none")
    assert refused.value.code == ExitCode.INVALID
