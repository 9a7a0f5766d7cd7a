"""Files go back to what they were, whatever happened in between."""

from pathlib import Path

import pytest

from provider_agent.installation import record as module
from provider_agent.installation.record import Record


@pytest.fixture
def etc(tmp_path: Path) -> Path:
    return tmp_path / "etc" / "everlease"


def _undo_all(record: Record) -> list[bool]:
    done = [record.undo(entry) for entry in reversed(list(record.files))]
    record.close()
    return done


def test_a_file_that_was_there_comes_back_with_its_bytes_and_its_mode(tmp_path: Path, etc: Path) -> None:
    file = tmp_path / "daemon.json"
    file.write_bytes(b'{"a":1}')
    file.chmod(0o640)
    record = Record.load(etc)

    assert record.write(file, "ours", 0o644)
    assert file.stat().st_mode & 0o777 == 0o644
    assert _undo_all(Record.load(etc)) == [True]

    assert file.read_bytes() == b'{"a":1}'
    assert file.stat().st_mode & 0o777 == 0o640
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["daemon.json"]


def test_files_and_folders_that_were_not_there_go(tmp_path: Path, etc: Path) -> None:
    record = Record.load(etc)
    record.write(tmp_path / "units" / "x.d" / "50.conf", "text", 0o644)
    assert etc.stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "units").stat().st_mode & 0o777 == 0o755

    assert _undo_all(record) == [True]

    assert list(tmp_path.iterdir()) == []


def test_a_second_installation_changes_nothing_and_remembers_the_first_bytes(tmp_path: Path, etc: Path) -> None:
    file = tmp_path / "file"
    file.write_text("before")
    assert Record.load(etc).write(file, "one", 0o600)
    assert not Record.load(etc).write(file, "one", 0o600)
    assert Record.load(etc).write(file, "two", 0o600)

    _undo_all(Record.load(etc))

    assert file.read_text() == "before"


def test_what_somebody_else_changed_is_left_alone(tmp_path: Path, etc: Path) -> None:
    file = tmp_path / "file"
    record = Record.load(etc)
    record.write(file, "ours", 0o600)
    file.write_text("theirs")

    assert not record.undo(record.files[0])

    assert file.read_text() == "theirs"


@pytest.mark.parametrize("survives", [1, 2, 3, 4, 5, 6])
def test_killed_at_any_write_the_record_leads_back(
    tmp_path: Path, etc: Path, survives: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, fresh = tmp_path / "file", tmp_path / "new" / "file"
    file.write_text("before")
    real, done = module.replace, 0

    def dies(path: Path, data: bytes, mode: int) -> None:
        nonlocal done
        done += 1
        if done > survives:
            raise KeyboardInterrupt
        real(path, data, mode)

    monkeypatch.setattr(module, "replace", dies)
    try:
        record = Record.load(etc)
        record.write(file, "one", 0o600)
        record.write(fresh, "one", 0o600)
        record.write(file, "two", 0o600)
    except KeyboardInterrupt:
        pass
    monkeypatch.setattr(module, "replace", real)

    assert all(_undo_all(Record.load(etc)))

    assert file.read_text() == "before"
    assert not fresh.exists()
