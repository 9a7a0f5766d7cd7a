"""Ordinary programs moved over three hosts and back; each checks itself, and no step is lost or done twice."""

from dataclasses import replace

import pytest

from tests.integration.runtime.conftest import INTERNET, Fleet, until, until_steps

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
        seen += host.settled(container.id)
        host.engine.remove(container.id)
        host = fleet.hosts[name]
        container = host.receive(spec, result.path)
    until_steps(host, container, 8)
    seen += host.steps(container.id)
    assert [line.split()[:2] for line in seen] == [["ok", str(n)] for n in range(1, len(seen) + 1)]
    if program == "outside":
        assert seen[-1].split()[2:] == ["4", "4"], "each move must cut both connections to the outside once"


def test_a_line_that_a_move_cuts_is_whole_over_both_hosts(fleet: Fleet) -> None:
    """What was written before the checkpoint stays on the first host, the rest of the line comes from the second."""
    source = (
        "import sys, time\n"
        "for step in range(1, 100_000):\n"
        "    sys.stdout.write(f'step {step}')\n"
        "    sys.stdout.flush()\n"
        "    time.sleep(0.2)\n"
        "    print(' ok', flush=True)\n"
    )
    spec = fleet.raw_spec("python", "-c", source)
    a, b = fleet.hosts["a"], fleet.hosts["b"]
    first = a.launch(spec)
    until(lambda: len(a.steps(first.id)) > 3)
    result = a.checkpointer.dump(first.id, fleet.dump_path(), stay_frozen=True)
    assert a.output(first.id).endswith(b"\n"), "Docker holds a cut line back"
    a.engine.kill(first.id)
    a.engine.wait(first.id, timeout=30)
    second = b.receive(replace(spec, fence=2), result.path)
    until(lambda: len(b.steps(second.id)) > 3)
    before, after = a.output(first.id), b.output(second.id)
    assert not before.endswith(b"\n")
    lines = (before + after).decode().splitlines()
    assert lines == [f"step {step} ok" for step in range(1, len(lines) + 1)]
