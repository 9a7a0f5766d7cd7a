"""A dump and a fence: refused before, parked in the middle, and what becomes of the job after either."""

import os
import signal
import threading
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from provider_agent import guard, guards
from provider_agent.runtime.checkpoint import Checkpointer
from provider_agent.runtime.container import JobContainer
from provider_agent.runtime.errors import ContainerFault, DumpFailed, Parked
from tests.integration.runtime.conftest import Fleet, Host, until, until_steps

LARGE = """
import os, time
state = bytearray(os.urandom(1 << 20)) * 400
step = 0
while True:
    step += 1
    state[step % len(state)] ^= 255
    os.write(1, f"ok {step}\\n".encode())
    time.sleep(0.01)
"""


def large(fleet: Fleet) -> JobContainer:
    container = fleet.hosts["a"].launch(fleet.raw_spec("python", "-c", LARGE))
    until_steps(fleet.hosts["a"], container, 5)
    return container


def fence(folder: Path) -> None:
    guards.extend(folder, guard.boottime())
    until(lambda: guards.fenced(folder), every=0.001)


def criu_of(container: JobContainer) -> list[psutil.Process]:
    """The processes of a dump of this container: runc's command line names it, CRIU is its child."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if container.id in words and "checkpoint" in words:
            with suppress(psutil.NoSuchProcess):
                found += [process, *process.children(recursive=True)]
    return found


def fence_in_the_middle(a: Host, container: JobContainer, target: Path) -> float:
    """Begin a dump, let the lease end once CRIU writes memory; seconds from the fence to the dump's failure."""
    failed: list[float] = []

    def dump() -> None:
        with pytest.raises(Parked):
            a.checkpointer.dump(container.id, target, timeout=60)
        failed.append(time.monotonic())

    thread = threading.Thread(target=dump)
    thread.start()
    until(lambda: any((target / "criu").glob("pages-*.img")), every=0.002)
    fence(a.folder(container.id))
    fenced = time.monotonic()
    thread.join(20)
    assert failed, "the dump hangs"
    return failed[0] - fenced


def goes_on(a: Host, container: JobContainer) -> None:
    folder = a.folder(container.id)
    before = len(a.steps(container.id))
    guards.thaw(folder, guard.boottime() + 600)
    until(lambda: a.last(container.id) > before + 20)
    lines = a.steps(container.id)
    assert lines == [f"ok {step}" for step in range(1, len(lines) + 1)]


@pytest.mark.parametrize("hold", [False, True])
def test_a_dump_of_a_fenced_container_is_refused_at_once(fleet: Fleet, hold: bool) -> None:
    """The case fence_dump: the lease is extended again before the dump, as by the next acknowledged heartbeat."""
    a = fleet.hosts["a"]
    container = a.launch(fleet.spec("counter"))
    until_steps(a, container, 5)
    folder = a.folder(container.id)
    fence(folder)
    guards.extend(folder, guard.boottime() + 600)
    began = time.monotonic()
    with pytest.raises(DumpFailed, match="fenced on this host"):
        a.checkpointer.dump(container.id, fleet.dump_path(), stay_frozen=hold, timeout=15)
    assert time.monotonic() - began < 1
    goes_on(a, container)
    assert a.engine.inspect(container.id).exit_code is None
    assert a.checkpointer.dump(container.id, fleet.dump_path()).bytes > 0


def test_a_fence_in_the_middle_of_a_dump_parks_it_and_the_job_goes_on(fleet: Fleet) -> None:
    a = fleet.hosts["a"]
    container = large(fleet)
    target = fleet.dump_path()
    assert fence_in_the_middle(a, container, target) < 1
    began = time.monotonic()
    with pytest.raises(ContainerFault, match="another dump is under way"):
        a.checkpointer.dump(container.id, fleet.dump_path(), timeout=15)
    # A new agent does not wait for the parked dump either.
    Checkpointer(a.checkpointer.tools, a.state).settle_later(container.id)
    assert time.monotonic() - began < 2
    goes_on(a, container)
    until(lambda: not criu_of(container))
    until(lambda: not (target / "criu").exists())
    assert not (target / "dump.json").exists()
    inner = guard.find_freezer(a.folder(container.id))
    assert inner is not None
    until(lambda: not inner.requested())
    assert a.checkpointer.dump(container.id, fleet.dump_path()).bytes > 300 << 20
    goes_on(a, container)


def test_a_container_with_a_parked_dump_is_removed_without_another_step(fleet: Fleet) -> None:
    a = fleet.hosts["a"]
    container = large(fleet)
    fence_in_the_middle(a, container, fleet.dump_path())
    stopped = len(a.settled(container.id))
    began = time.monotonic()
    a.engine.kill(container.id)
    assert a.engine.wait(container.id, timeout=20) == 137
    assert a.last(container.id) == stopped
    a.engine.remove(container.id)
    assert time.monotonic() - began < 20
    until(lambda: not criu_of(container))


def test_a_held_dump_of_a_killed_agent_leaves_the_job_running(fleet: Fleet) -> None:
    """The agent is killed once it froze the container's own cgroup; the next one settles what it left."""
    a = fleet.hosts["a"]
    container = a.launch(fleet.spec("counter"))
    until_steps(a, container, 5)
    inner = guard.find_freezer(a.folder(container.id))
    assert inner is not None
    inner.freeze()
    until(inner.frozen)
    a.checkpointer.settle_later(container.id)
    goes_on(a, container)


def test_a_dump_that_is_given_up_leaves_the_job_running(fleet: Fleet) -> None:
    a = fleet.hosts["a"]
    container = large(fleet)
    with pytest.raises(DumpFailed, match="too long"):
        a.checkpointer.dump(container.id, fleet.dump_path(), timeout=0.15)
    steps = a.last(container.id)
    until(lambda: a.last(container.id) > steps)


def test_a_held_container_can_be_dumped_and_stays_held(fleet: Fleet) -> None:
    a = fleet.hosts["a"]
    container = a.launch(fleet.spec("counter"))
    until_steps(a, container, 5)
    folder = a.folder(container.id)
    guards.freeze(folder)
    stopped = len(a.settled(container.id))
    assert a.checkpointer.dump(container.id, fleet.dump_path()).frozen
    assert (folder / "held").exists()
    inner = guard.find_freezer(folder)
    assert inner is not None
    assert not inner.requested()
    os.kill(int((folder / "guard.pid").read_text()), signal.SIGKILL)
    until(lambda: guards.alive(folder))
    assert len(a.settled(container.id)) == stopped
    goes_on(a, container)
