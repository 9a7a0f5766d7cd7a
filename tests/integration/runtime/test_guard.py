"""The guard freezes by itself when the lease runs out, outlives the agent, and is replaced when it is killed."""

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from provider_agent import guard, guards
from provider_agent.runtime.container import JobContainer
from provider_agent.runtime.errors import ContainerFault
from tests.integration.runtime.conftest import ROOT, Fleet, Host, until, until_steps

ENSURE = """
import sys
from pathlib import Path
from provider_agent import guards
guards.ensure(Path(sys.argv[1]))
print("up", flush=True)
sys.stdin.read()
"""


def frozen(host: Host, container: JobContainer) -> bool:
    freezer = guard.find_freezer(host.folder(container.id))
    return freezer is not None and freezer.frozen()


def counter(fleet: Fleet) -> JobContainer:
    container = fleet.hosts["a"].launch(fleet.spec("counter"))
    until_steps(fleet.hosts["a"], container, 5)
    return container


def test_freezes_when_the_lease_ends_and_thaws_only_when_told(fleet: Fleet) -> None:
    a = fleet.hosts["a"]
    container = counter(fleet)
    folder = a.folder(container.id)
    guards.extend(folder, guard.boottime() + 0.3)
    until(lambda: guards.fenced(folder))
    until(lambda: frozen(a, container))
    # A later heartbeat alone must not wake it: the job may live elsewhere by now.
    guards.extend(folder, guard.boottime() + 600)
    stopped = len(a.settled(container.id))
    time.sleep(0.5)
    assert frozen(a, container)
    assert a.last(container.id) == stopped
    guards.thaw(folder, guard.boottime() + 600)
    until(lambda: a.last(container.id) > stopped)
    assert not guards.fenced(folder)
    assert a.steps(container.id)[stopped] == f"ok {stopped + 1}"


def test_outlives_the_agent_and_a_new_agent_finds_it(fleet: Fleet) -> None:
    a = fleet.hosts["a"]
    made = a.engine.create(fleet.spec("counter"), a.root / "checkpoints" / "guarded")
    folder = a.folder(made.id)
    guards.extend(folder, guard.boottime() + 1.5)
    argv = [sys.executable, "-c", ENSURE, str(folder)]
    with subprocess.Popen(argv, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as agent:
        assert agent.stdout is not None
        assert agent.stdout.readline() == b"up\n"
        a.engine.start(made.id)
        agent.kill()
    until(lambda: frozen(a, made))
    assert guards.ensure(folder) is False
    assert guards.fenced(folder)


def test_a_killed_guard_is_replaced(fleet: Fleet) -> None:
    a = fleet.hosts["a"]
    container = counter(fleet)
    folder = a.folder(container.id)
    os.kill(int((folder / "guard.pid").read_text()), signal.SIGKILL)
    until(lambda: not guards.alive(folder))
    # Until the agent looks, at its next heartbeat, nobody enforces the lease; from then on it counts again at once.
    guards.extend(folder, guard.boottime() - 1)
    time.sleep(0.3)
    assert not frozen(a, container)
    assert guards.ensure(folder) is True
    until(lambda: frozen(a, container))


def test_ends_with_its_container(fleet: Fleet) -> None:
    a = fleet.hosts["a"]
    container = counter(fleet)
    pid = int((a.folder(container.id) / "guard.pid").read_text())
    guards.freeze(a.folder(container.id))
    a.engine.remove(container.id)
    until(lambda: not Path(f"/proc/{pid}").exists())


def test_without_a_lease_nothing_runs(fleet: Fleet) -> None:
    a = fleet.hosts["a"]
    made = a.engine.create(fleet.spec("counter"), a.root / "checkpoints" / "unarmed")
    guards.ensure(a.folder(made.id))
    # The guard may freeze before runc's own init is through; Docker's start then fails, which is as good.
    with suppress(ContainerFault):
        a.engine.start(made.id)
    until(lambda: frozen(a, made) or a.engine.inspect(made.id).status != "running")
    assert a.last(made.id) <= 1


def test_a_fence_in_the_middle_of_dumps_holds(fleet: Fleet) -> None:
    """CRIU thaws the cgroup that the guard froze; the guard freezes it again, and the dump fails or ends frozen."""
    a = fleet.hosts["a"]
    spec = fleet.raw_spec("python", "train.py", "--samples", "20000", "--hidden", "256", "--pause", "0.01")
    container = a.launch(spec)
    until(lambda: len(a.steps(container.id)) > 3)
    folder = a.folder(container.id)
    stop = threading.Event()

    def dumps() -> None:
        while not stop.is_set():
            try:
                a.checkpointer.dump(container.id, fleet.dump_path(), timeout=20)
            except Exception:  # a fenced container's dump may fail in any way
                time.sleep(0.05)

    thread = threading.Thread(target=dumps)
    thread.start()
    time.sleep(0.3)
    guards.extend(folder, guard.boottime())
    until(lambda: guards.fenced(folder))
    stop.set()
    thread.join()
    stopped = len(a.settled(container.id))
    assert frozen(a, container)
    time.sleep(0.5)
    assert len(a.steps(container.id)) == stopped


def test_a_frozen_container_is_removed_without_another_step(fleet: Fleet) -> None:
    a = fleet.hosts["a"]
    spec = fleet.spec("counter")
    container = a.launch(replace(spec, fence=7))
    until_steps(a, container, 5)
    guards.freeze(a.folder(container.id))
    stopped = len(a.settled(container.id))
    a.engine.kill(container.id)
    assert a.engine.wait(container.id, timeout=20) == 137
    assert a.last(container.id) == stopped
