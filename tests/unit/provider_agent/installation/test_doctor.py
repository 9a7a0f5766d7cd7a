"""The doctor's trial runs in the agent's own cgroups and leaves none where there is no agent."""

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from provider_agent import cgroups, guards
from provider_agent.installation import doctor

pytestmark = [pytest.mark.docker, pytest.mark.skipif(os.geteuid() != 0, reason="cgroups are made by root")]


@pytest.fixture
def root() -> str:
    return f"everlease{uuid.uuid4().hex[:8]}"


@pytest.fixture
def data(tmp_path: Path) -> Iterator[Path]:
    state = tmp_path / "runtime"
    (state / "containers").mkdir(parents=True)
    yield tmp_path
    guards.teardown(state)


def test_what_it_makes_under_the_agents_root_goes_again(data: Path, root: str) -> None:
    with doctor._cgroups(data, root, keep=False):
        layout = cgroups.layout_of(data / "runtime")
        assert layout.root == root
        assert layout.jobs.is_dir()
    assert not cgroups.is_set_up(data / "runtime")
    assert not any((tree / layout.path()).exists() for tree in layout.trees)


@pytest.mark.parametrize("sign", ["installed", "agent.sock", "runtime/containers/x"])
def test_an_agents_cgroups_stay(data: Path, root: str, sign: str) -> None:
    with doctor._cgroups(data, root, keep=sign == "installed"):
        if sign != "installed":
            (data / sign).touch()
    assert cgroups.layout_of(data / "runtime").root == root
    with doctor._cgroups(data, "everleaseother", keep=False):
        assert cgroups.layout_of(data / "runtime").root == root, "the agent's choice stands"
    assert cgroups.layout_of(data / "runtime").jobs.is_dir()
