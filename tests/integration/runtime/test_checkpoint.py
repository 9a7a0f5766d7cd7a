"""Dump and restore: bit for bit, frozen when asked, harmless when killed in the middle, rebuilt with the spec's
security.
"""

import json
import os
import subprocess
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from provider_agent import guard, guards
from provider_agent.runtime import audit, restore
from provider_agent.runtime.checkpoint import read_dump
from provider_agent.runtime.errors import CheckpointRefused, ContainerFault, DumpFailed, RestoreFailed
from tests.integration.runtime.conftest import Fleet, until, until_steps

SMALL = ("python", "train.py", "--samples", "8000", "--hidden", "256", "--pause", "0.02", "--steps")


def test_training_goes_on_bit_for_bit_on_another_host(fleet: Fleet) -> None:
    a, b = fleet.hosts["a"], fleet.hosts["b"]
    reference = a.launch(fleet.raw_spec(*SMALL, "60"))
    assert a.engine.wait(reference.id, timeout=60) == 0
    spec = fleet.raw_spec(*SMALL, "60")
    first = a.launch(spec)
    until(lambda: len(a.steps(first.id)) > 20)
    result = a.checkpointer.dump(first.id, fleet.dump_path())
    assert result.pause_s > 0
    assert result.bytes > 30_000_000
    second = b.receive(replace(spec, fence=2), result.path)
    assert a.engine.wait(first.id, timeout=60) == 0
    assert b.engine.wait(second.id, timeout=60) == 0
    expected, went_on, moved = (host.steps(which.id)[1:] for host, which in ((a, reference), (a, first), (b, second)))
    assert went_on == expected
    assert [*went_on, *moved][-len(moved) - 1 :][1:] == expected[-len(moved) - 1 :] or moved == expected[-len(moved) :]
    upper = b.folder(second.id) / "upper"
    assert (upper / "work/loss.csv").read_text().splitlines() == expected[:-1]


def test_nothing_runs_after_the_last_checkpoint(fleet: Fleet) -> None:
    a, b = fleet.hosts["a"], fleet.hosts["b"]
    spec = fleet.spec("counter")
    first = a.launch(spec)
    until_steps(a, first, 50)
    result = a.checkpointer.dump(first.id, fleet.dump_path(), stay_frozen=True)
    assert result.frozen
    last = len(a.settled(first.id))
    second = b.receive(replace(spec, fence=2), result.path)
    until_steps(b, second, 5)
    assert b.steps(second.id)[0] == f"ok {last + 1}"
    assert a.last(first.id) == last
    guards.thaw(a.folder(first.id), guard.boottime() + 60)
    until(lambda: a.last(first.id) > last)
    assert a.steps(first.id)[last] == f"ok {last + 1}"


def test_restored_tasks_have_the_rights_of_the_spec_and_its_limits(fleet: Fleet) -> None:
    a, b = fleet.hosts["a"], fleet.hosts["b"]
    spec = fleet.spec("processes")
    first = a.launch(spec)
    until_steps(a, first, 3)
    before = rights(first.pid)
    result = a.checkpointer.dump(first.id, fleet.dump_path(), stay_frozen=True)
    second = b.receive(replace(spec, fence=2), result.path)
    assert rights(second.pid) == before
    assert before["NoNewPrivs"] == "1"
    assert before["Seccomp"] == "2"
    assert int(before["CapBnd"], 16) == audit.ALLOWED_MASK
    freezer = guard.find_freezer(b.folder(second.id))
    assert freezer is not None
    assert second.id in str(freezer.path)
    assert len(freezer.pids()) == 3
    for controller in ("memory", "pids"):
        path = next(line for line in cgroups(second.pid) if controller in line.split(":")[1].split(","))
        assert second.id in path


def rights(pid: int) -> dict[str, str]:
    wanted = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp", "Seccomp_filters")
    lines = (line.split(":\t") for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return {pair[0]: pair[1].strip() for pair in lines if pair[0] in wanted}


def cgroups(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/cgroup").read_text().splitlines()


def test_an_agent_killed_in_a_restore_starts_over(fleet: Fleet) -> None:
    a, b = fleet.hosts["a"], fleet.hosts["b"]
    spec = fleet.spec("counter")
    first = a.launch(spec)
    until_steps(a, first, 10)
    result = a.checkpointer.dump(first.id, fleet.dump_path(), stay_frozen=True)
    last = len(a.settled(first.id))
    spec = replace(spec, fence=2)
    # Killed after `prepare`: nothing ran. Prepared again, the half-made container is replaced.
    abandoned = restore.prepare(b.engine, spec, result.path, b.root / "checkpoints" / spec.name)
    second = restore.prepare(b.engine, spec, result.path, b.root / "checkpoints" / spec.name)
    assert [listed.id for listed in b.engine.list(job_id=spec.job_id)] == [second.id]
    assert not b.folder(abandoned.id).exists()
    b.arm(second.id)
    running = restore.start(b.engine, second).container
    # Killed after `start`: the container is found again by its labels, and a further `start` can't rewind it.
    until_steps(b, running, 10)
    (found,) = b.engine.list(job_id=spec.job_id)
    assert (found.id, found.fence, found.status) == (second.id, 2, "running")
    b.engine.start(found.id)
    assert b.steps(found.id)[0] == f"ok {last + 1}"
    assert [line.split()[1] for line in b.steps(found.id)[:10]] == [str(last + n) for n in range(1, 11)]


def test_a_restore_without_its_images_is_refused_and_leaves_nothing(fleet: Fleet) -> None:
    a, b = fleet.hosts["a"], fleet.hosts["b"]
    spec = fleet.spec("counter")
    first = a.launch(spec)
    until_steps(a, first, 5)
    result = a.checkpointer.dump(first.id, fleet.dump_path())
    spec = replace(spec, fence=2)
    folder = b.root / "checkpoints" / spec.name
    pages = result.path / "criu" / "pages-1.img"
    size = pages.stat().st_size
    seccomp = result.path / "criu" / "seccomp.img"
    filters = seccomp.read_bytes()
    # The first instruction of the filter becomes "return SECCOMP_RET_ALLOW".
    seccomp.write_bytes(filters.replace(bytes.fromhex("2000000004000000"), bytes.fromhex("060000000000ff7f"), 1))
    with pytest.raises(CheckpointRefused, match="seccomp filter that allows"):
        restore.prepare(b.engine, spec, result.path, folder)
    seccomp.write_bytes(filters)
    os.truncate(pages, 4096)
    with pytest.raises(CheckpointRefused, match="shorter than its pagemap"):
        restore.prepare(b.engine, spec, result.path, folder)
    with pages.open("ab") as stream:
        stream.truncate(size)
    (result.path / "criu" / "fs-1.img").unlink()
    prepared = restore.prepare(b.engine, spec, result.path, folder)
    with pytest.raises(RestoreFailed) as failure:
        restore.start(b.engine, prepared)
    assert failure.value.log_tail
    (result.path / "files" / "upper.tar").unlink()
    with pytest.raises(CheckpointRefused, match=r"upper\.tar"):
        restore.prepare(b.engine, spec, result.path, folder)
    (result.path / "dump.json").unlink()
    with pytest.raises(CheckpointRefused, match="never finished"):
        read_dump(result.path)
    assert b.engine.list(job_id=spec.job_id) == ()


def test_a_full_disk_fails_the_dump_and_keeps_the_job(fleet: Fleet) -> None:
    a = fleet.hosts["a"]
    container = a.launch(fleet.raw_spec(*SMALL, "100000"))
    until(lambda: len(a.steps(container.id)) > 3)
    small = fleet.root / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "small", str(small)], check=True)
    try:
        with pytest.raises(DumpFailed, match="disk is full") as failure:
            a.checkpointer.dump(container.id, small / "dump")
        assert failure.value.retryable
    finally:
        subprocess.run(["umount", str(small)], check=True)
    reached = len(a.steps(container.id))
    until(lambda: len(a.steps(container.id)) > reached)


INOTIFY = """
import ctypes
libc = ctypes.CDLL(None)
assert libc.inotify_add_watch(libc.inotify_init(), b"/work", 2) > 0
"""
NETLINK = """
import socket
talk = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
talk.bind((0, 0))
talk.send(bytes([20, 0, 0, 0, 18, 0, 1, 3]) + bytes(12))
"""


@pytest.mark.parametrize(("source", "sentence"), [(INOTIFY, "inotify"), (NETLINK, "socket")])
def test_trial_says_what_cannot_be_checkpointed(fleet: Fleet, source: str, sentence: str) -> None:
    a = fleet.hosts["a"]
    program = f"{source}\nprint('up', flush=True)\nimport time; time.sleep(1000)"
    container = a.launch(fleet.raw_spec("python", "-c", program))
    until(lambda: a.steps(container.id) == ["up"])
    trial = a.checkpointer.trial(container.id, fleet.dump_path())
    assert trial.error is not None
    assert sentence in str(trial.error)
    assert trial.error.permanent
    assert a.engine.inspect(container.id).status == "running"


def test_io_uring_is_denied_to_jobs(fleet: Fleet) -> None:
    a = fleet.hosts["a"]
    program = "import ctypes; l=ctypes.CDLL(None, use_errno=True); print(l.syscall(425, 1, 0), ctypes.get_errno())"
    container = a.launch(fleet.raw_spec("python", "-c", program))
    assert a.engine.wait(container.id, timeout=20) == 0
    assert a.steps(container.id) == ["-1 1"]


def test_files_mode_restarts_with_its_folder(fleet: Fleet) -> None:
    a, b = fleet.hosts["a"], fleet.hosts["b"]
    source = (
        "import os,time\nn=int(open('/checkpoint/n').read()) if os.environ.get('EVERLEASE_RESUME') else 0\n"
        "while True:\n n+=1; open('/checkpoint/n.new','w').write(str(n))\n"
        " os.replace('/checkpoint/n.new','/checkpoint/n')\n"
        " print('ok', n, flush=True); time.sleep(0.02)"
    )
    spec = fleet.raw_spec("python", "-c", source, mode="files")
    first = a.launch(spec)
    until_steps(a, first, 10)
    result = a.checkpointer.snapshot(first.id, fleet.dump_path())
    assert result.mode == "files"
    at = a.last(first.id)
    until(lambda: a.last(first.id) > at)
    second = b.receive(replace(spec, fence=2), result.path)
    until_steps(b, second, 3)
    begun = int(b.steps(second.id)[0].split()[1])
    assert 10 < begun <= at + 2


def test_a_second_dump_waits_and_a_frozen_container_can_be_dumped(fleet: Fleet) -> None:
    a = fleet.hosts["a"]
    container = a.launch(fleet.spec("counter"))
    until_steps(a, container, 5)
    targets = [fleet.dump_path(), fleet.dump_path()]
    threads = [threading.Thread(target=a.checkpointer.dump, args=(container.id, target)) for target in targets]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(json.loads((target / "dump.json").read_text())["mode"] == "process" for target in targets)
    guards.freeze(a.folder(container.id))
    result = a.checkpointer.dump(container.id, fleet.dump_path())
    assert result.frozen
    stopped = len(a.settled(container.id))
    time.sleep(0.2)
    assert a.last(container.id) == stopped
    a.engine.remove(container.id)
    with pytest.raises(ContainerFault, match="not running"):
        a.checkpointer.dump(container.id, fleet.dump_path())
