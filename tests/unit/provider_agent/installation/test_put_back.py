"""An uninstallation takes our part out of Docker's daemon.json and leaves everybody else's."""

import json
from pathlib import Path

import pytest

from provider_agent.installation.host import put_back, write_runtime
from provider_agent.installation.record import Record

BEFORE = '{"log-driver":"journald"}'


@pytest.fixture
def etc(tmp_path: Path) -> Path:
    return tmp_path / "etc"


@pytest.fixture(params=["daemon.json", "other-name.json"])
def config(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    return tmp_path / str(request.param)


def _install(etc: Path, config: Path, data: str = "/var/lib/everlease") -> None:
    write_runtime(Record.load(etc), config, Path(data) / "everlease-runc", lambda _: None)
    assert json.loads(config.read_text())["runtimes"]["everlease"]["path"] == f"{data}/everlease-runc"


def _uninstall(etc: Path) -> None:
    record = Record.load(etc)
    put_back(record, lambda _: None)
    record.close()
    assert not etc.exists()


def _add(config: Path, **settings: str) -> None:
    config.write_text(json.dumps(json.loads(config.read_text()) | settings))


@pytest.mark.parametrize("before", [BEFORE, None])
def test_what_an_admin_added_between_two_installations_stays(etc: Path, config: Path, before: str | None) -> None:
    if before is not None:
        config.write_text(before)
    _install(etc, config)
    _add(config, **{"data-root": "/srv/docker"})
    _install(etc, config, "/srv/everlease")

    _uninstall(etc)

    theirs = json.loads(before or "{}") | {"data-root": "/srv/docker"}
    assert json.loads(config.read_text()) == theirs


def test_what_nobody_else_changed_comes_back_byte_for_byte(etc: Path, config: Path) -> None:
    config.write_text(BEFORE)
    _install(etc, config)
    _install(etc, config, "/srv/everlease")

    _uninstall(etc)

    assert config.read_text() == BEFORE


def test_what_an_admin_took_out_and_the_file_they_removed_stay_away(etc: Path, config: Path) -> None:
    config.write_text(BEFORE)
    _install(etc, config)
    config.unlink()
    _install(etc, config)

    _uninstall(etc)

    assert "log-driver" not in config.read_text()


@pytest.mark.parametrize("changed", [False, True])
@pytest.mark.parametrize("before", [BEFORE, None])
def test_a_symlink_stays_a_symlink(etc: Path, config: Path, before: str | None, changed: bool) -> None:
    target = config.with_name("managed")
    if before is not None:
        target.write_text(before)
    config.symlink_to(target)
    _install(etc, config)
    assert config.is_symlink()
    if changed:
        _add(config, **{"data-root": "/srv/docker"})

    _uninstall(etc)

    assert config.is_symlink()
    if before is not None or changed:
        theirs = {"data-root": "/srv/docker"} if changed else {}
        assert json.loads(target.read_text()) == json.loads(before or "{}") | theirs
    else:
        assert not target.exists()


def test_a_mask_of_systemd_is_replaced_and_what_it_points_to_is_not(tmp_path: Path, etc: Path) -> None:
    unit = tmp_path / "everlease-agent.service"
    unit.symlink_to("/dev/null")

    Record.load(etc).write(unit, "text", 0o644)

    assert unit.read_text() == "text"
    assert Path("/dev/null").is_char_device()
