"""The guard freezes by itself when the lease runs out, outlives the agent, and is replaced when it is killed."""

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from docker.errors import APIError

from provider_agent import cgroups, guard, guards, keeper
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


def pid_of(folder: Path) -> int:
    return int((folder / "guard.pid").read_text())


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


def test_a_killed_guard_is_frozen_by_its_keeper_and_replaced(fleet: Fleet) -> None:
    a = fleet.hosts["a"]
    container = counter(fleet)
    folder = a.folder(container.id)
    before = pid_of(folder)
    os.kill(before, signal.SIGKILL)
    killed = time.monotonic()
    until(lambda: guards.stands_still(folder), 0.5, every=0.001)
    assert time.monotonic() - killed < 0.5
    # No agent has a hand in this.
    until(lambda: guards.alive(folder) and pid_of(folder) != before and not guards.stands_still(folder))
    stopped = a.last(container.id)
    until(lambda: a.last(container.id) > stopped)


def test_a_guard_killed_again_and_again_comes_back(fleet: Fleet) -> None:
    a = fleet.hosts["a"]
    container = counter(fleet)
    folder = a.folder(container.id)
    for _ in range(12):
        before = pid_of(folder)
        os.kill(before, signal.SIGKILL)
        until(lambda before=before: guards.alive(folder) and pid_of(folder) != before)  # type: ignore[misc]
    until(lambda: not guards.stands_still(folder))


def test_a_guard_killed_after_its_lease_leaves_the_container_frozen(fleet: Fleet) -> None:
    a = fleet.hosts["a"]
    container = counter(fleet)
    folder = a.folder(container.id)
    guards.extend(folder, guard.boottime() - 1)
    os.kill(pid_of(folder), signal.SIGKILL)
    until(lambda: guards.alive(folder) and guards.fenced(folder))
    stopped = len(a.settled(container.id))
    time.sleep(0.5)
    assert frozen(a, container)
    assert a.last(container.id) == stopped


def test_the_host_guard_freezes_what_nobody_guards_and_comes_back(fleet: Fleet) -> None:
    a = fleet.hosts["a"]
    container = counter(fleet)
    folder = a.folder(container.id)
    before = int((a.state / "hostguard.pid").read_text())
    os.kill(before, signal.SIGKILL)
    until(lambda: guard.lives(a.state / "hostguard.lock") and int((a.state / "hostguard.pid").read_text()) != before)
    keeper.keeper_of(a.state).stop(container.id)
    until(lambda: guards.stands_still(folder), 1)
    assert not guards.alive(folder)
    assert guards.ensure(folder) is True
    until(lambda: not guards.stands_still(folder))


def test_a_guard_that_was_stopped_does_not_let_a_job_run_past_its_lease(fleet: Fleet) -> None:
    a = fleet.hosts["a"]
    container = counter(fleet)
    folder = a.folder(container.id)
    os.kill(pid_of(folder), signal.SIGSTOP)
    try:
        guards.extend(folder, guard.boottime() + 0.2)
        until(lambda: guards.stands_still(folder), 1)
    finally:
        os.kill(pid_of(folder), signal.SIGCONT)
    until(lambda: guards.fenced(folder))


def test_docker_and_runc_do_not_undo_a_fence(fleet: Fleet) -> None:
    a = fleet.hosts["a"]
    container = counter(fleet)
    folder = a.folder(container.id)
    guards.extend(folder, guard.boottime())
    until(lambda: frozen(a, container))
    stopped = len(a.settled(container.id))
    inner = guard.find_freezer(folder)
    assert inner is not None
    a.engine.client.api.pause(container.id)
    a.engine.client.api.unpause(container.id)
    inner.freeze()
    inner.thaw()
    assert len(a.settled(container.id)) == stopped
    outer = guards.outer(folder)
    outer.thaw()
    until(outer.frozen, 1, every=0.01)
    assert guards.fenced(folder)


def test_a_held_container_stays_so_whoever_thaws_it(fleet: Fleet) -> None:
    a = fleet.hosts["a"]
    container = counter(fleet)
    folder = a.folder(container.id)
    guards.freeze(folder)
    guards.outer(folder).thaw()
    until(lambda: guards.stands_still(folder))
    os.kill(pid_of(folder), signal.SIGKILL)
    until(lambda: guards.alive(folder))
    time.sleep(0.3)
    assert guards.stands_still(folder)
    guards.thaw(folder, guard.boottime() + 600)
    until(lambda: not guards.stands_still(folder))


def test_nothing_starts_unguarded(fleet: Fleet) -> None:
    a = fleet.hosts["a"]
    made = a.engine.create(fleet.spec("counter"), a.root / "checkpoints" / "unguarded")
    folder = a.folder(made.id)
    guards.extend(folder, guard.boottime() + 600)
    with pytest.raises(ContainerFault, match="no guard watches"):
        a.engine.start(made.id)
    guards.ensure(folder)
    guards.extend(folder, guard.boottime() - 1)
    with pytest.raises(ContainerFault, match="lease on this job is over"):
        a.engine.start(made.id)


def test_nobody_but_the_agent_starts_a_container(fleet: Fleet) -> None:
    """`docker restart`, and `docker start` of one that ended, would run the program from its beginning."""
    a = fleet.hosts["a"]
    container = counter(fleet)
    with pytest.raises(APIError, match="not started by the agent"):
        a.engine.client.api.restart(container.id, timeout=0)
    with pytest.raises(APIError, match="not started by the agent"):
        a.engine.client.api.start(container.id)
    assert a.engine.inspect(container.id).exit_code is not None
    assert sum(line == "ok 1" for line in a.steps(container.id)) == 1
    # A start of what runs leaves no permission behind.
    other = counter(fleet)
    a.engine.start(other.id)
    with pytest.raises(APIError, match="not started by the agent"):
        a.engine.client.api.restart(other.id, timeout=0)


def test_nothing_is_left_of_a_removed_container(fleet: Fleet) -> None:
    a = fleet.hosts["a"]
    container = counter(fleet)
    outer, pid = guards.outer(a.folder(container.id)), pid_of(a.folder(container.id))
    assert outer.pids()
    a.engine.remove(container.id)
    layout = cgroups.layout_of(a.state)
    assert not any(list(tree.glob(f"**/{outer.path.name}")) for tree in layout.trees)
    assert not (keeper.MOUNTS / layout.root / container.id).exists()
    until(lambda: not Path(f"/proc/{pid}").exists())


def test_ends_with_its_container(fleet: Fleet) -> None:
    a = fleet.hosts["a"]
    container = counter(fleet)
    pid = pid_of(a.folder(container.id))
    guards.freeze(a.folder(container.id))
    a.engine.remove(container.id)
    until(lambda: not Path(f"/proc/{pid}").exists())


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
