"""The host guard watches the cgroups that the agent uses now, whoever started it and when."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from provider_agent import cgroups, guard
from provider_agent.runtime.errors import ContainerFault


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Path]:
    """A state folder whose cgroups are plain files that look like cgroup v2's."""
    found = tmp_path / "state"
    found.mkdir()
    yield found
    (found / "cgroups.json").unlink(missing_ok=True)


def _choose(state: Path, jobs: Path) -> None:
    part = state / "part"
    part.write_text(json.dumps({"root": "x", "systemd": False, "version": 2, "jobs": str(jobs)}))
    part.rename(state / "cgroups.json")


def _unguarded(jobs: Path, name: str) -> Path:
    outer = jobs / name
    outer.mkdir(parents=True)
    (outer / "cgroup.events").write_text("populated 1\nfrozen 0\n")
    (outer / "cgroup.freeze").write_text("0")
    return outer / "cgroup.freeze"


def _until_frozen(freeze: Path) -> None:
    give_up = time.monotonic() + 10
    while freeze.read_text() != "1":
        assert time.monotonic() < give_up, f"{freeze} was not frozen"
        time.sleep(0.02)


def test_it_follows_the_agent_to_other_cgroups_and_still_watches_those_of_before(state: Path, tmp_path: Path) -> None:
    before, after = tmp_path / "before", tmp_path / "after"
    _choose(state, before)
    first = _unguarded(before, "one")
    process = subprocess.Popen([sys.executable, "-I", "-S", guard.__file__.replace("guard.py", "hostguard.py"), state])
    try:
        _until_frozen(first)
        _choose(state, after)
        _until_frozen(_unguarded(after, "two"))
        _until_frozen(_unguarded(before, "three"))
        (state / "cgroups.json").unlink()
        assert process.wait(10) == guard.ENDED
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            process.wait()


def test_asking_for_the_cgroups_makes_none(state: Path) -> None:
    with pytest.raises(ContainerFault, match="no agent has set them up"):
        cgroups.layout_of(state)
    assert not (state / "cgroups.json").exists()
