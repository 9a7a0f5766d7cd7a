"""A restored job is what it was: namespaces, cgroup, mounts, limits, rights, masks and devices, as it sees them."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.integration.runtime.conftest import Fleet
from tests.support import identity

SYS_RESOURCE = 24  # linux/capability.h


def _held() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("CapEff")).split()[1], 16)


@pytest.mark.parametrize("user", [None, "1000:1000"])
def test_nothing_of_a_job_differs_after_two_restores(fleet: Fleet, user: str | None, tmp_path: Path) -> None:
    if user and not _held() >> SYS_RESOURCE & 1:
        pytest.skip("without CAP_SYS_RESOURCE CRIU can't read the limits of another user's tasks (prlimit(2))")
    a = fleet.hosts["a"]
    found = identity.run(a.engine, a.checkpointer, fleet.image, user, tmp_path)
    assert not found, "\n".join(found)


def test_what_differs_is_told(fleet: Fleet) -> None:
    a = fleet.hosts["a"]
    spec = fleet.spec("counter")
    first = a.launch(spec)
    seen = identity.look(a.engine, first, spec)
    a.engine.remove(first.id)
    assert len(seen) > 100
    roomier = replace(spec, fence=2, limits=replace(spec.limits, memory_bytes=2 << 30), user="1000:1000")
    other = identity.look(a.engine, a.launch(roomier), roomier)
    told = {line.partition(":")[0] for line in identity.differences(seen, other)}
    assert {"inside limit", "status Uid"} <= told
