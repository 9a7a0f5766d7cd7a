"""Dumps that are killed in their middle, by anyone, or take too long: the job goes on, or begins again by the host's
fault.
"""

import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from provider_agent import guards
from provider_agent.guard import Freezer, find_freezer
from provider_agent.runtime import diagnosis, parked
from provider_agent.runtime.checkpoint import sweep
from provider_agent.runtime.errors import ContainerFault, DumpFailed
from tests.integration.runtime.conftest import ROOT, Fleet, Host, until, until_steps

SMALL = ("python", "train.py", "--samples", "8000", "--hidden", "256", "--pause", "0.02", "--steps")
AGENT = """
import sys
from pathlib import Path
from provider_agent.runtime.checkpoint import Checkpointer, HostTools
runc, criu, state, container, target = sys.argv[1:]
Checkpointer(HostTools(Path(runc), Path(criu)), Path(state)).dump(container, Path(target))
"""

DATAGRAMS = """
import contextlib, socket, time
link = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
link.bind(("127.0.0.1", 7000))
link.settimeout(0.5)
step = 0
while True:
    with contextlib.suppress(OSError):
        link.sendto(b"x", ("127.0.0.1", 7000))
        link.recv(100)
        step += 1
        print("ok", step, flush=True)
    time.sleep(0.05)
"""


@pytest.mark.parametrize("victim", ["agent", "runc", "criu", "all"])
def test_a_dump_killed_anywhere_leaves_the_job_running_or_broken_by_its_host(fleet: Fleet, victim: str) -> None:
    """A CRIU that is killed while it makes a system call in a task's place takes that task along."""
    a, b = fleet.hosts["a"], fleet.hosts["b"]
    spec = fleet.raw_spec(*SMALL, "100000")
    container = a.launch(spec)
    until(lambda: len(a.steps(container.id)) > 3)
    target = fleet.dump_path()
    for delay in (0.02, 0.06, 0.1, 0.14):
        killed_dump(a, container.id, target.with_name(f"{target.name}-{delay}"), victim, delay)
        if broken(a, container.id):
            a.engine.remove(container.id)
            container = a.launch(spec)
        goes_on(a, container.id)
    # A dump whose agent alone died may have ended well for CRIU, but without its record it counts as aborted.
    for path in sweep(target.parent):
        assert not path.exists()
    until(lambda: len(a.steps(container.id)) > 10)
    result = a.checkpointer.dump(container.id, target, stay_frozen=True)
    done = len(a.settled(container.id))
    a.engine.remove(container.id)
    moved = b.receive(replace(spec, fence=2), result.path)
    until(lambda: len(b.steps(moved.id)) > 3)
    assert int(b.steps(moved.id)[0].split()[0]) == done


def killed_dump(host: Host, container: str, target: Path, victim: str, delay: float) -> None:
    """Dump in an agent of its own and SIGKILL one of the processes at work some time after runc began."""
    tools = host.checkpointer.tools
    argv = [sys.executable, "-c", AGENT, str(tools.runc), str(tools.criu), str(host.state), container, str(target)]
    with subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as agent:
        until(lambda: bool(workers(container)) or agent.poll() is not None)
        time.sleep(delay)
        victims = [agent.pid] if victim in {"agent", "all"} else []
        victims += [pid for pid, name in workers(container) if victim in {name, "all"}]
        for pid in victims:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        agent.wait()
        until(lambda: not workers(container))
    settle(host, container)
    until(lambda: not dumping(target))


def dumping(target: Path) -> list[int]:
    """The processes that CRIU left at work in the folder of a dump."""
    found = []
    for proc in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if str(proc.joinpath("cwd").readlink()).startswith(str(target)):
                found.append(int(proc.name))
    return found


def settle(host: Host, container: str) -> None:
    """What an agent does that is started after one was killed in a dump."""
    thread = host.checkpointer.settle_later(container)
    thread.join(30)
    assert not thread.is_alive()
    assert not parked.unsettled(host.folder(container))


def broken(host: Host, container: str) -> bool:
    """Whether the container ended by the fault of its host, and all of it did."""
    if not (host.folder(container) / "broken").exists():
        return False
    code = host.engine.wait(container, timeout=20)
    assert code in (parked.TRAPPED, 137) or (host.folder(container) / "broken").read_text() == "connections"
    assert parked.fault(host.folder(container), code) == parked.BROKEN
    return True


@pytest.mark.parametrize("agent_lives", [True, False])
def test_a_container_that_lost_a_process_to_a_killed_dump_is_ended_whole(fleet: Fleet, agent_lives: bool) -> None:
    """The parent would wait for ever for its child, or take its death for a fault of the program."""
    a = fleet.hosts["a"]
    container = a.launch(fleet.spec("family"))
    until_steps(a, container, 3)
    child = max(find_freezer(a.folder(container.id)).pids())  # type: ignore[union-attr]
    target = fleet.dump_path()
    if agent_lives:
        failed: list[DumpFailed] = []
        dump = threading.Thread(target=lambda: failed.append(interrupted(a, container.id, target)))
        dump.start()
    else:
        tools = a.checkpointer.tools
        argv = [sys.executable, "-c", AGENT, str(tools.runc), str(tools.criu), str(a.state), container.id, str(target)]
        agent = subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    log = target / "work" / "dump.log"
    until(lambda: log.exists() and diagnosis.criu_held(log) == child, every=0.002)
    if not agent_lives:
        agent.kill()
        agent.wait()
    for pid, _ in workers(container.id):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    os.kill(child, signal.SIGKILL)  # as if it had been left in CRIU's code
    if agent_lives:
        dump.join(30)
        assert failed[0].retryable
    else:
        until(lambda: not workers(container.id))
        settle(a, container.id)
    assert broken(a, container.id)


@pytest.mark.parametrize("program", ["loopback", "datagrams"])
@pytest.mark.parametrize("moment", ["Lock network", "Dumping task (pid: ", "Running post-dump scripts"])
def test_a_killed_dump_leaves_no_network_locked(fleet: Fleet, program: str, moment: str) -> None:
    """CRIU drops every packet of the container, and has its connections refuse themselves, until its own end."""
    a = fleet.hosts["a"]
    spec = fleet.spec("loopback") if program == "loopback" else fleet.raw_spec("python", "-c", DATAGRAMS)
    container = a.launch(spec)
    until_steps(a, container, 3)
    (a.root / "checkpoints" / spec.name / "large").write_bytes(b"x" * (1 << 29))
    target = fleet.dump_path()
    failed: list[DumpFailed] = []
    dump = threading.Thread(target=lambda: failed.append(interrupted(a, container.id, target)))
    dump.start()
    log = a.folder(container.id) / "dumping" / "dump.log"
    until(lambda: log.exists() and moment in log.read_text(errors="replace"), every=0.002)
    for pid, _ in workers(container.id):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    dump.join(30)
    assert failed[0].retryable
    settle(a, container.id)
    if not broken(a, container.id):
        goes_on(a, container.id)
        assert a.checkpointer.dump(container.id, fleet.dump_path()).bytes
        goes_on(a, container.id)
    else:
        assert (program, moment) != ("datagrams", "Running post-dump scripts"), "CRIU had let go of it"


@pytest.mark.parametrize("log", ["Dumping FAILED.", "Dumping finished successfully", "Dumping pstree (pid: 9)"])
def test_a_process_that_ends_after_criu_let_go_breaks_nothing(fleet: Fleet, log: str) -> None:
    a = fleet.hosts["a"]
    container = a.launch(fleet.spec("family"))
    until_steps(a, container, 3)
    child = max(find_freezer(a.folder(container.id)).pids())  # type: ignore[union-attr]
    folder = a.folder(container.id)
    leave_log(folder, f"{at_work_in(child)}(00.2) {log}\n")
    parked.note_session(folder)
    os.kill(child, signal.SIGKILL)
    settle(a, container.id)
    assert not broken(a, container.id)
    goes_on(a, container.id)


def test_the_log_of_a_dump_that_was_settled_is_not_looked_at_again(fleet: Fleet) -> None:
    """An agent's restart, long after one of its dumps was interrupted and nothing had come of it."""
    a = fleet.hosts["a"]
    container = a.launch(fleet.spec("family"))
    until_steps(a, container, 3)
    folder = a.folder(container.id)
    child = max(find_freezer(folder).pids())  # type: ignore[union-attr]
    leave_log(folder, at_work_in(child))
    os.kill(child, signal.SIGKILL)
    settle(a, container.id)
    assert not broken(a, container.id)


def test_processes_that_come_and_go_are_none_that_criu_held(fleet: Fleet) -> None:
    a = fleet.hosts["a"]
    program = "i=0; while :; do i=$((i+1)); echo ok $i; sleep 0.02; done"
    container = a.launch(fleet.raw_spec("sh", "-c", program))
    until_steps(a, container, 3)
    folder = a.folder(container.id)
    shell = min(find_freezer(folder).pids())  # type: ignore[union-attr]
    leave_log(folder, at_work_in(shell))
    parked.note_session(folder)
    settle(a, container.id)
    assert not broken(a, container.id)
    goes_on(a, container.id)


def test_a_snapshot_of_a_job_that_stands_still_is_taken(fleet: Fleet) -> None:
    """The last one before an agent leaves."""
    a = fleet.hosts["a"]
    spec = fleet.spec("counter", mode="files")
    container = a.launch(spec)
    (a.root / "checkpoints" / spec.name / "large").write_bytes(b"x" * (1 << 29))
    until_steps(a, container, 3)
    guards.freeze(a.folder(container.id))
    assert a.checkpointer.snapshot(container.id, fleet.dump_path()).bytes > 1 << 29
    assert guards.stands_still(a.folder(container.id))


def test_a_dump_whose_tasks_do_not_stop_leaves_the_job_running(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    a = fleet.hosts["a"]
    container = a.launch(fleet.spec("counter"))
    until_steps(a, container, 3)

    def never(freezer: Freezer, folder: Path, timeout: float = 10.0) -> None:
        raise ContainerFault("freeze", folder.name[:12], "its tasks did not stop in time", retryable=True)

    monkeypatch.setattr(guards, "wait_frozen", never)
    with pytest.raises(ContainerFault, match="did not stop"):
        a.checkpointer.dump(container.id, fleet.dump_path(), stay_frozen=True)
    reached = a.last(container.id)
    until(lambda: a.last(container.id) > reached)


def test_a_dump_that_hangs_after_its_agent_was_killed_is_ended(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    a = fleet.hosts["a"]
    container = a.launch(fleet.spec("counter"))
    until_steps(a, container, 3)
    folder = a.folder(container.id)
    parked.note_session(folder)
    lock = folder / "dump.lock"
    lock.touch()
    command = ["bash", "-c", f'exec 9>{lock}; flock 9; exec -a "tar --file x" sleep 600']
    with lock.open("rb") as handle, subprocess.Popen(parked.in_session(folder, command), start_new_session=True) as tar:
        until(lambda: held(handle.fileno()))
        monkeypatch.setattr(parked, "PATIENCE_S", 0.5)
        settle(a, container.id)
        assert tar.wait(10) == -signal.SIGKILL
    reached = a.last(container.id)
    until(lambda: a.last(container.id) > reached)


def held(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    fcntl.flock(handle, fcntl.LOCK_UN)
    return False


def test_a_zombie_is_none_that_criu_held(tmp_path: Path) -> None:
    log = tmp_path / "dump.log"
    log.write_text(at_work_in(7))
    assert diagnosis.criu_held(log) == 7
    log.write_text(at_work_in(7) + "(00.2) Dumping task (pid: 8 comm: sh)\n(00.2) ====\n")
    assert diagnosis.criu_held(log) is None


def goes_on(host: Host, container: str) -> None:
    reached = len(host.steps(container))
    until(lambda: len(host.steps(container)) > reached + 3)


def leave_log(folder: Path, text: str) -> None:
    """CRIU's log of the container's last dump."""
    (folder / "dumping").mkdir()
    (folder / "dumping" / "dump.log").write_text(text)


def at_work_in(pid: int) -> str:
    return f"(00.1) Dumping task (pid: {pid} comm: x)\n(00.1) ====\n(00.1) Obtaining task stat ...\n"


def interrupted(host: Host, container: str, target: Path) -> DumpFailed:
    with pytest.raises(DumpFailed) as caught:
        host.checkpointer.dump(container, target)
    return caught.value


def workers(container: str) -> list[tuple[int, str]]:
    """(pid, "runc" or "criu") of the processes that dump this container."""
    found = []
    for proc in Path("/proc").glob("[0-9]*"):
        try:
            words = (proc / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"checkpoint" in words and container.encode() in words and b"runc" in words[0]:
            pid = int(proc.name)
            found.append((pid, "runc"))
            for children in proc.glob("task/*/children"):
                found += [(int(child), "criu") for child in children.read_text().split()]
    return found


def test_a_snapshot_that_takes_too_long_leaves_the_job_running(fleet: Fleet) -> None:
    a = fleet.hosts["a"]
    spec = fleet.spec("counter", mode="files")
    container = a.launch(spec)
    (a.root / "checkpoints" / spec.name / "large").write_bytes(b"x" * (1 << 29))
    until_steps(a, container, 3)
    with pytest.raises(DumpFailed, match="too long"):
        a.checkpointer.snapshot(container.id, fleet.dump_path(), timeout=0)
    goes_on(a, container.id)
