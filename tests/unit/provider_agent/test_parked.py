"""The end of a dump that failed: what can't be settled now is settled later, and the dump's own error comes through."""

import json
from pathlib import Path

import psutil
import pytest

from provider_agent.runtime import parked


@pytest.mark.parametrize("error", [OSError("the cgroup is gone"), psutil.NoSuchProcess(1)])
def test_what_fails_or_can_not_be_settled_now_is_left_to_a_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    later: list[Path] = []
    monkeypatch.setattr(parked, "reap_later", later.append)

    def fails(folder: Path) -> bool:
        raise error

    for settle, expected in ((fails, 1), (lambda folder: False, 2), (lambda folder: True, 2)):
        monkeypatch.setattr(parked, "settle", settle)
        parked.settle_now_or_later(tmp_path)
        assert later == [tmp_path] * expected


def test_the_dump_of_a_killed_agent_names_its_session_on_a_full_disk_too(tmp_path: Path) -> None:
    """The file has its size before: a session is written into it, not appended."""
    parked.note_session(tmp_path)
    size = (tmp_path / "dump.session").stat().st_size
    assert parked.unsettled(tmp_path)
    assert parked._session(tmp_path) is None
    with (tmp_path / "dump.session").open("r+") as stream:
        stream.write("4321\n")
    assert parked._session(tmp_path) == 4321
    assert (tmp_path / "dump.session").stat().st_size == size
    parked.forget_session(tmp_path)
    assert not parked.unsettled(tmp_path)


def test_what_a_dump_left_is_settled_after_a_reboot_took_its_cgroup(tmp_path: Path) -> None:
    """The session's file outlived the power cut; the end of the job is judged only once it is gone."""
    (tmp_path / "outer.json").write_text(json.dumps({"path": str(tmp_path / "gone"), "version": 2, "name": "x"}))
    parked.note_session(tmp_path)
    parked.reap_later(tmp_path).join(5)
    assert not parked.unsettled(tmp_path)
