"""Which password opens which key."""

from pathlib import Path

import pytest

from everlease.chain.errors import KeyRefused, WrongPassword
from everlease.chain.keys import Key, save_keystore
from everlease.cli.config import Config, resolve
from everlease.cli.context import Context
from everlease.cli.errors import CliError
from everlease.cli.unlock import unlock


def keystore(path: Path, password: str) -> Path:
    save_keystore(path, Key.generate(), password, rounds=2**12)
    return path


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Who was asked for; the answer is always "typed"."""
    found: list[str] = []

    def answer(text: str, **_: object) -> str:
        found.append(text)
        return "typed"

    monkeypatch.setattr("everlease.cli.unlock.ask_password", answer)
    return found


def project(folder: Path) -> None:
    """A project whose configuration names a key and its password."""
    keystore(folder / "tenant.json", "tenant's")
    (folder / "tenant.pw").write_text("tenant's\n")
    (folder / "everlease.toml").write_text('key_file = "tenant.json"\npassword_file = "tenant.pw"\n')


def context(folder: Path, environment: dict[str, str] | None = None, **flags: Path) -> Context:
    return Context(resolve(flags, environment or {}, folder, folder / "none.toml"))


def test_the_projects_password_is_for_the_projects_key(tmp_path: Path, asked: list[str]) -> None:
    project(tmp_path)
    assert context(tmp_path).key is not None
    assert asked == []


@pytest.mark.parametrize("by", ["flag", "environment"])
def test_another_key_is_asked_for_its_own_password(tmp_path: Path, asked: list[str], by: str) -> None:
    project(tmp_path)
    other = keystore(tmp_path / "other.json", "typed")
    found = context(tmp_path, key_file=other) if by == "flag" else context(tmp_path, {"EVERLEASE_KEY_FILE": str(other)})
    assert found.key == unlock(other, "typed").key
    assert asked == ["Password for other.json"]


def test_the_environments_password_goes_with_the_environments_key(tmp_path: Path, asked: list[str]) -> None:
    mine, other = keystore(tmp_path / "mine.json", "mine"), keystore(tmp_path / "other.json", "typed")
    environment = {"EVERLEASE_KEY_FILE": str(mine), "EVERLEASE_PASSWORD": "mine"}
    assert context(tmp_path, environment).key == unlock(mine, "mine").key
    assert context(tmp_path, environment, key_file=other).key == unlock(other, "typed").key
    assert len(asked) == 1


def test_a_password_without_a_key_beside_it_is_for_the_key_that_is_used(tmp_path: Path, asked: list[str]) -> None:
    project(tmp_path)
    other = keystore(tmp_path / "other.json", "other's")
    assert context(tmp_path, {"EVERLEASE_PASSWORD": "other's"}, key_file=other).key is not None
    (tmp_path / "other.pw").write_text("other's")
    assert context(tmp_path, key_file=other, password_file=tmp_path / "other.pw").key is not None
    assert asked == []


def test_a_flag_beats_the_environment(tmp_path: Path) -> None:
    mine = keystore(tmp_path / "mine.json", "flag")
    (tmp_path / "mine.pw").write_text("flag")
    flags = {"key_file": mine, "password_file": tmp_path / "mine.pw"}
    assert context(tmp_path, {"EVERLEASE_PASSWORD": "environment"}, **flags).key is not None
    raw = resolve(flags, {"EVERLEASE_PRIVATE_KEY": "0x1"}, tmp_path, tmp_path / "none")
    assert (raw.key_file, raw.private_key) == (mine, None)


def test_the_environments_raw_key_beats_the_projects_file(tmp_path: Path) -> None:
    project(tmp_path)
    found = resolve({}, {"EVERLEASE_PRIVATE_KEY": "0x1"}, tmp_path, tmp_path / "none")
    assert (found.key_file, found.private_key) == (None, "0x1")


def test_a_key_has_its_own_password_file_beside_it(tmp_path: Path, asked: list[str]) -> None:
    node = keystore(tmp_path / "node.json", "node's")
    (tmp_path / "node.password").write_text("node's\n")
    (tmp_path / "password").write_text("another's\n")
    assert unlock(node).file == tmp_path / "node.password"
    assert asked == []


def test_a_folders_password_file_opens_what_it_opens(tmp_path: Path, asked: list[str]) -> None:
    first, second = keystore(tmp_path / "first.json", "shared"), keystore(tmp_path / "second.json", "shared")
    (tmp_path / "password").write_text("shared\n")
    third = keystore(tmp_path / "third.json", "typed")
    assert unlock(first).file == unlock(second).file == tmp_path / "password"
    assert asked == []
    assert unlock(third).file is None
    assert asked == ["Password for third.json"]


def test_what_is_given_for_a_key_and_wrong_is_told(tmp_path: Path, asked: list[str]) -> None:
    node = keystore(tmp_path / "node.json", "node's")
    (tmp_path / "password").write_text("node's\n")
    with pytest.raises(WrongPassword, match=r"the password for .*node\.json is wrong"):
        unlock(node, "wrong")
    (tmp_path / "wrong").write_text("wrong")
    with pytest.raises(KeyRefused):
        unlock(node, file=tmp_path / "wrong")
    assert asked == []


def test_without_a_terminal_it_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    node = keystore(tmp_path / "node.json", "node's")

    def aborts(*_: object, **__: object) -> str:
        import typer

        raise typer.Abort

    monkeypatch.setattr("typer.prompt", aborts)
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(CliError, match=r"Password for node\.json: there is no terminal"):
        unlock(node)


def test_the_password_is_in_no_text(tmp_path: Path) -> None:
    node = keystore(tmp_path / "node.json", "a secret word")
    assert "a secret word" not in repr(unlock(node, "a secret word"))
    assert Config().password_is_for(node)
