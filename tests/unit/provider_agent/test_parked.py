"""The end of a dump that failed: what can't be settled now is settled later, and the dump's own error comes through."""

import json
import signal
import subprocess
import time
import tracemalloc
from pathlib import Path

import psutil
import pytest

from provider_agent import guard
from provider_agent.runtime import diagnosis, oci, parked
from provider_agent.runtime.checkpoint import Checkpointer, HostTools
from provider_agent.runtime.errors import DumpFailed

CONTAINER = "c" * 64
AT_WORK = "(00.1) Dumping task (pid: 7 comm: x)\n(00.1) ====\n(00.1) Obtaining task stat ...\n"


@pytest.mark.parametrize("error", [OSError("the cgroup is gone"), psutil.NoSuchProcess(1), MemoryError()])
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


def test_a_log_of_any_length_is_gone_through_in_little_memory_and_then_cut(tmp_path: Path) -> None:
    """The tenant chooses how many mappings CRIU tells of."""
    log = tmp_path / "dumping" / "dump.log"
    log.parent.mkdir()
    mappings = b"(00.2) 0x7f0000000000-0x7f0000001000 (4K) prot 0x3 flags 0x22\n" * 4096
    with log.open("wb") as stream:
        stream.write(b"(00.1) Dumping task (pid: 7 comm: x)\n(00.1) Obtaining task stat ... \n")
        for _ in range(256):
            stream.write(mappings)
        stream.write(b"x" * 3_000_000 + b"Dumping FAILED.\n(00.3) endless")
    tracemalloc.start()
    try:
        assert diagnosis.criu_held(log) == 7
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()
    parked.note_session(tmp_path)
    parked.forget_session(tmp_path)
    assert log.stat().st_size <= diagnosis.TAIL_BYTES
    assert diagnosis.tail(log).endswith("endless")


def test_no_fault_ends_the_thread_that_settles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    faults = [MemoryError(), RuntimeError("can't start new thread")]

    def settle(folder: Path) -> bool:
        if faults:
            raise faults.pop()
        parked.forget_session(folder)
        return True

    monkeypatch.setattr(parked, "settle", settle)
    monkeypatch.setattr(parked, "AFTER_A_FAULT_S", 0.01, raising=False)
    parked.note_session(tmp_path)
    parked.reap_later(tmp_path).join(10)
    assert not parked.unsettled(tmp_path)


def test_only_this_containers_dump_of_this_boot_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A session's number is another's after a reboot, and later under the same boot; names say nothing."""
    ours, other = tmp_path / "ours", tmp_path / "other"
    for folder in (ours, other):
        folder.mkdir()
        parked.note_session(folder)
    sleep = ["bash", "-c", "exec -a containerd-shim-runc-v2 sleep 60 # tar "]
    with (
        subprocess.Popen(parked.in_session(ours, sleep), start_new_session=True) as dump,
        subprocess.Popen(sleep, start_new_session=True) as shim,
    ):
        try:
            give_up = time.monotonic() + 10
            while parked._session(ours) != dump.pid or b"containerd" not in cmdline(dump) + cmdline(shim):
                assert time.monotonic() < give_up
                time.sleep(0.01)
            for stranger in (shim, dump):
                note = (other / "dump.session").read_text()
                (other / "dump.session").write_text(f"{stranger.pid}\n{note}")
                parked.end_session(other)
                with pytest.raises(subprocess.TimeoutExpired):
                    stranger.wait(0.2)
                parked.note_session(other)
            with monkeypatch.context() as rebooted:
                rebooted.setattr(guard, "boot_id", lambda: "another")
                parked.end_session(ours)
            with pytest.raises(subprocess.TimeoutExpired):
                dump.wait(0.2)
            parked.end_session(ours)
            assert dump.wait(10) == -signal.SIGKILL
        finally:
            for process in (dump, shim):
                process.kill()


def test_no_process_is_suspected_once_criu_let_go_of_the_last(tmp_path: Path) -> None:
    log = tmp_path / "dump.log"
    log.write_text(AT_WORK)
    assert diagnosis.criu_held(log) == 7
    log.write_text(f"{AT_WORK}(00.2) Dumping pstree (pid: 7)\n(00.2) ====\n(00.3) namespaces: Dump UTS namespace\n")
    assert diagnosis.criu_held(log) is None


@pytest.mark.parametrize(("said", "full"), [("criu failed: type NOTIFY errno 28", False), ("", True)])
def test_a_dump_that_criu_ended_accuses_nobody_though_a_full_disk_cut_its_log_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, full: bool
) -> None:
    monkeypatch.setattr(diagnosis, "disk_is_full", lambda folder: full)
    with pytest.raises(DumpFailed):
        run_dump(tmp_path, said)
    assert not parked.unsettled(oci.container_folder(tmp_path, CONTAINER))


def test_a_dump_whose_criu_was_killed_waits_to_be_settled(tmp_path: Path) -> None:
    """runc ends by itself then, too."""
    with pytest.raises(DumpFailed):
        run_dump(tmp_path, "unexpected EOF")
    assert parked.unsettled(oci.container_folder(tmp_path, CONTAINER))


def run_dump(state: Path, said: str) -> None:
    """Have a runc that says this and fails take a checkpoint, whose CRIU was last at work in process 7."""
    folder, runc = oci.container_folder(state, CONTAINER), state / "runc"
    work = state / "target" / "work"
    for path in (folder, work):
        path.mkdir(parents=True)
    (work / "dump.log").write_text(AT_WORK)
    bundle = {"root": "/", "bundle": "/", "pid_file": "/none", "systemd_cgroup": False}
    (folder / "bundle.json").write_text(json.dumps(bundle))
    runc.write_text(f"#!/bin/sh\necho '{said}'\nexit 1\n")
    runc.chmod(0o700)
    checkpointer = Checkpointer(HostTools(runc, runc), state)
    with checkpointer.exclusive(folder) as lock:
        checkpointer._checkpoint(CONTAINER, state / "target", lock, 10)


@pytest.mark.parametrize(("code", "why"), [(0, ""), (3, ""), (137, ""), (133, parked.BROKEN)])
def test_the_end_of_a_containers_first_process_is_judged_by_how_it_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, why: str
) -> None:
    with subprocess.Popen(["true"]) as init:
        init.wait()
    suspected(tmp_path, monkeypatch, init=init.pid, pid=init.pid)
    assert parked.settle(tmp_path)
    assert parked.settle(tmp_path), "an agent's restart"
    assert parked.fault(tmp_path, code) == why


def test_the_end_of_another_process_is_the_hosts_doing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with subprocess.Popen(["true"]) as child:
        child.wait()
    suspected(tmp_path, monkeypatch, init=1, pid=child.pid)
    assert parked.settle(tmp_path)
    assert parked.fault(tmp_path, 0) == parked.BROKEN


@pytest.mark.parametrize(("code", "why"), [(0, ""), (1, parked.BROKEN), (137, parked.BROKEN)])
def test_a_job_that_lost_its_connections_to_a_killed_dump_is_the_hosts_doing_unless_it_ended_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, why: str
) -> None:
    """Before CRIU is dead for the agent, the job is refused by its own sockets, and may have ended of it."""
    suspected(tmp_path, monkeypatch, init=7, pid=7)
    with (tmp_path / "dumping" / "dump.log").open("a") as log:
        log.write("(00.2) tcp: \tTurning repair on for socket 7aa\n(00.3) Dumping pstree (pid: 7)\n")
    assert parked.settle(tmp_path)
    assert parked.fault(tmp_path, code) == why


def test_a_network_that_can_not_be_unlocked_is_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    suspected(tmp_path, monkeypatch, init=1, pid=1)
    (tmp_path / "dumping" / "dump.log").write_text("(00.1) net: Lock network\n")
    monkeypatch.setattr(parked.unlocking, "unlock", lambda folder: False)
    assert parked.settle(tmp_path)
    assert parked.fault(tmp_path, 0) == parked.BROKEN


def suspected(folder: Path, monkeypatch: pytest.MonkeyPatch, *, init: int, pid: int) -> None:
    """A container with this first process, and a dump in it whose CRIU was killed at work in that one."""
    (folder / "init.pid").write_text(str(init))
    (folder / "bundle.json").write_text(json.dumps({"pid_file": str(folder / "init.pid")}))
    (folder / "dumping").mkdir()
    (folder / "dumping" / "dump.log").write_text(AT_WORK.replace("7", str(pid)))
    monkeypatch.setattr(parked, "find_freezer", lambda folder: None)
    parked.note_session(folder)


@pytest.mark.parametrize("log", ["", "(00.1) net: Lock network\n", f"{AT_WORK}(00.2) Dumping finished successfully\n"])
def test_a_held_job_whose_agent_died_after_the_dump_can_be_dumped_again(tmp_path: Path, log: str) -> None:
    """Its tasks stand still by the agent's own wish, and nothing of CRIU is in them."""
    held(tmp_path, log)
    assert parked.settle(tmp_path)
    assert not parked.unsettled(tmp_path)


def test_a_dump_that_waits_in_tasks_that_stand_still_is_left_alone(tmp_path: Path) -> None:
    held(tmp_path, AT_WORK)
    assert not parked.settle(tmp_path)
    assert parked.unsettled(tmp_path)


def held(folder: Path, log: str) -> None:
    """A container that the agent holds, and what CRIU said in its unsettled dump."""
    (folder / "outer.json").write_text(json.dumps({"path": str(folder / "outer"), "version": 2, "name": "x"}))
    for name, text in (("outer/cgroup.freeze", "1"), ("outer/cgroup.events", "populated 1"), ("dumping/dump.log", log)):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    parked.note_session(folder)


def test_a_criu_that_wrote_its_title_over_its_environment_is_ended(tmp_path: Path) -> None:
    parked.note_session(tmp_path)
    command = ["bash", "-c", "exec -a 'criu.elf: dump --rpc -t 7 -D x' sleep 60"]
    with subprocess.Popen(command, start_new_session=True, env={}) as criu:
        try:
            with (tmp_path / "dump.session").open("r+") as stream:
                stream.write(f"{criu.pid}\n")
            while b"sleep" in cmdline(criu):
                time.sleep(0.01)
            parked.end_session(tmp_path)
            assert criu.wait(10) == -signal.SIGKILL
        finally:
            criu.kill()


def cmdline(process: "subprocess.Popen[bytes]") -> bytes:
    return Path(f"/proc/{process.pid}/cmdline").read_bytes()
