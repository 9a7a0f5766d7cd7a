"""Key files: written whole, private, and refused in one sentence."""

import stat
from pathlib import Path

import pytest

from everlease.chain.errors import KeyRefused
from everlease.chain.keys import Key, load_keystore, raw_key, save_keystore


def test_a_key_survives_its_file(tmp_path: Path) -> None:
    key, path = Key.generate(), tmp_path / "keys" / "node.json"
    save_keystore(path, key, "secret", rounds=2)
    assert load_keystore(path, "secret") == key
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in path.parent.iterdir()] == ["node.json"]


def test_no_file_is_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "key.json"
    path.write_text("mine")
    with pytest.raises(KeyRefused, match="left as it is"):
        save_keystore(path, Key.generate(), "secret", rounds=2)
    assert path.read_text() == "mine"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"version": 3}', '{"version": 9, "crypto": {}}', "\u20ac"])
def test_other_files_are_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "key.json"
    path.write_text(content)
    with pytest.raises(KeyRefused, match="not a geth keystore"):
        load_keystore(path, "secret")


def test_wrong_password_and_missing_file(tmp_path: Path) -> None:
    path = tmp_path / "key.json"
    save_keystore(path, Key.generate(), "secret", rounds=2)
    with pytest.raises(KeyRefused, match="password"):
        load_keystore(path, "wrong")
    with pytest.raises(KeyRefused, match="no key file"):
        load_keystore(tmp_path / "none.json", "secret")


def test_raw_keys_stay_on_development_chains() -> None:
    key = Key.generate()
    assert raw_key(key.secret.hex(), 31337) == key
    with pytest.raises(KeyRefused, match="development"):
        raw_key(key.secret.hex(), 1)
    for bad in ("zz", "00" * 32, "11"):
        with pytest.raises(KeyRefused):
            raw_key(bad, 31337)


def test_a_key_never_shows_its_secret() -> None:
    assert Key.of(b"\7" * 32).secret.hex() not in repr(Key.of(b"\7" * 32))
