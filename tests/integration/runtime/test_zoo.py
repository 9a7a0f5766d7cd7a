"""Ordinary programs moved over three hosts and back; each checks itself, and no step is lost or done twice."""

from dataclasses import replace

import pytest

from tests.integration.runtime.conftest import INTERNET, Fleet, until_steps

PROGRAMS = ("threads", "processes", "database", "sharedmemory", "loopback", "files", "eventloop", "counter")


@pytest.mark.parametrize("program", [*PROGRAMS, "outside"])
def test_survives_three_hosts_and_back(fleet: Fleet, program: str) -> None:
    args = (INTERNET, "9000") if program == "outside" else ()
    spec = fleet.spec(program, *args)
    host = fleet.hosts["a"]
    container = host.launch(spec)
    seen: list[str] = []
    for generation, name in enumerate(("b", "c", "a", "b"), start=2):
        until_steps(host, container, 8)
        spec = replace(spec, fence=generation)
        result = host.checkpointer.dump(container.id, fleet.dump_path(), stay_frozen=True)
        seen += host.steps(container.id)
        host.engine.remove(container.id)
        host = fleet.hosts[name]
        container = host.receive(spec, result.path)
    until_steps(host, container, 8)
    seen += host.steps(container.id)
    assert [line.split()[:2] for line in seen] == [["ok", str(n)] for n in range(1, len(seen) + 1)]
    if program == "outside":
        assert seen[-1].split()[2:] == ["4", "4"], "each move must cut both connections to the outside once"
