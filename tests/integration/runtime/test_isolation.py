"""What a job can reach and what it gets: the internet, its limits, nothing of the host or of other jobs."""

import itertools
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from provider_agent import cgroups, guards
from provider_agent.runtime import container, network
from provider_agent.runtime.capability import capabilities
from provider_agent.runtime.container_log import LogLine
from provider_agent.runtime.daemon import connect, use_existing
from provider_agent.runtime.errors import CheckpointRefused, DaemonUnavailable, ImageMissing, RuntimeNotRegistered
from provider_agent.runtime.everlease_runc import KEEPERS
from provider_agent.runtime.wire_images import fields, messages
from tests.integration.runtime.conftest import INTERNET, Fleet, Host, until

DIAL = """
import socket, sys
for target in sys.argv[1:]:
    address, port = target.rsplit(":", 1)
    try:
        socket.create_connection((address, int(port)), timeout=2).close()
        print(target, "reached", flush=True)
    except OSError:
        print(target, "refused", flush=True)
"""
LISTEN = "import socket,time; s=socket.create_server(('0.0.0.0', 8000)); print('up', flush=True); time.sleep(1000)"


def test_a_job_reaches_the_internet_and_nothing_else(fleet: Fleet) -> None:
    a = fleet.hosts["a"]
    other = a.launch(fleet.raw_spec("python", "-c", LISTEN))
    until(lambda: a.steps(other.id) == ["up"])
    neighbour = network.identity(other.job_id)
    spec = fleet.raw_spec("python", "-c", "pass")
    own = network.identity(spec.job_id)
    argv = ["nsenter", f"--net={a.docker.netns}", "--", sys.executable, "-c", LISTEN]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as listener:
        try:
            assert listener.stdout is not None
            listener.stdout.readline()
            closed = [
                f"{a.address}:8000",
                f"{own.gateway}:8000",
                f"{neighbour.gateway}:8000",
                f"{neighbour.address}:8000",
            ]
            closed += ["169.254.169.254:80", "10.0.0.1:80", "192.168.1.1:80", f"{INTERNET}:1"]
            job = a.launch(replace(spec, command=("python", "-c", DIAL, f"{INTERNET}:9000", *closed)))
            assert a.engine.wait(job.id, timeout=60) == 0
            lines = a.steps(job.id)
        finally:
            listener.kill()
    assert lines[0] == f"{INTERNET}:9000 reached"
    assert lines[1:] == [f"{target} refused" for target in closed]


def test_a_job_sees_no_cgroups_of_the_guards(fleet: Fleet) -> None:
    a = fleet.hosts["a"]
    job = a.launch(fleet.raw_spec("cat", "/proc/self/mountinfo"))
    assert a.engine.wait(job.id, timeout=60) == 0
    mounts = a.steps(job.id)
    assert any("/sys/fs/cgroup" in line for line in mounts)
    assert not any("everlease" in line.partition(" - ")[0].split()[4] for line in mounts)
    assert Path(KEEPERS).is_dir(), "they are where the host's other processes see them"


def test_the_firewall_is_installed_once_and_removed(fleet: Fleet) -> None:
    netns = fleet.hosts["b"].docker.netns
    firewall = network.Firewall(netns)

    def listed() -> list[str]:
        argv = ["nsenter", f"--net={netns}", "--", "iptables", "-S"]
        return [line for line in subprocess.check_output(argv, text=True).splitlines() if "EVERLEASE" in line]

    before = listed()
    firewall.install()
    assert listed() == before
    firewall.remove()
    firewall.remove()
    assert listed() == []
    firewall.install()
    assert sorted(listed()) == sorted(before)


def test_limits_hold(fleet: Fleet) -> None:
    a = fleet.hosts["a"]
    eater = a.launch(fleet.raw_spec("python", "-c", "x = bytearray(3 << 30)"))
    assert a.engine.wait(eater.id, timeout=60) == 137
    assert a.engine.inspect(eater.id).oom_killed
    spec = fleet.raw_spec("python", "-c", "import os,time\nwhile os.fork(): pass\ntime.sleep(100)")
    forker = a.launch(replace(spec, limits=replace(spec.limits, pids=20)))
    assert a.engine.wait(forker.id, timeout=60) != 0
    assert "Resource temporarily unavailable" in a.steps(forker.id)[-1]
    writer = a.launch(
        fleet.raw_spec("python", "-c", "open('/work/big','wb').write(bytes(30<<20)); import time; time.sleep(99)")
    )
    until(lambda: a.engine.disk_used(writer.id) >= 30 << 20)


def test_logs_resume_after_a_cursor_until_the_end(fleet: Fleet) -> None:
    a = fleet.hosts["a"]
    job = a.launch(
        fleet.raw_spec("python", "-c", "import time\nfor n in range(30): print(n, flush=True); time.sleep(0.02)")
    )
    lines: list[LogLine] = []
    ended = False
    while not ended:
        ended = a.engine.inspect(job.id).exit_code is not None
        after = lines[-1].cursor if lines else None
        lines += itertools.islice(a.engine.logs(job.id, after=after), None if ended else 10)
    assert [line.text for line in lines] == [f"{n}\n".encode() for n in range(30)]


def test_logs_are_what_was_written_and_resume_after_any_piece(fleet: Fleet) -> None:
    """A line longer than Docker's own pieces, whose parts share one timestamp, and an end without a newline."""
    a = fleet.hosts["a"]
    written = "".join(f"{n:07d}" for n in range(10_000)) + "\nloss 0.25"
    program = "print(''.join(f'{n:07d}' for n in range(10_000)) + '\\nloss 0.25', end='')"
    job = a.launch(fleet.raw_spec("python", "-c", program))
    assert a.engine.wait(job.id, timeout=60) == 0
    pieces = list(a.engine.logs(job.id))
    assert b"".join(piece.text for piece in pieces) == written.encode()
    assert len({piece.cursor for piece in pieces}) == len(pieces) > 3
    for read, piece in enumerate(pieces, start=1):
        assert list(a.engine.logs(job.id, after=piece.cursor)) == pieces[read:]


def test_logs_resume_while_docker_rotates_them(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(container, "LOG_OPTIONS", {"max-size": "200k", "max-file": "3"})
    a = fleet.hosts["a"]
    program = "import time\nfor n in range(15_000):\n    print(n, flush=True)\n    n % 100 or time.sleep(0.02)"
    job = a.launch(fleet.raw_spec("python", "-c", program))
    lines: list[LogLine] = []
    reader, ended = a.engine.log(job.id), False
    while not ended:
        ended = a.engine.inspect(job.id).exit_code is not None
        lines += reader.read()
    assert [line.text for line in lines] == [f"{n}\n".encode() for n in range(15_000)]
    left = [line.text for line in a.engine.logs(job.id)]
    assert 0 < len(left) < 10_000, "the log was rotated"
    for read in (100, 12_000, 14_990):
        rest = [line.text for line in a.engine.logs(job.id, after=lines[read - 1].cursor)]
        assert rest == [line.text for line in lines[max(read, 15_000 - len(left)) :]]


def test_commands_run_inside(fleet: Fleet) -> None:
    a = fleet.hosts["a"]
    job = a.launch(fleet.raw_spec("python", "-c", LISTEN))
    code, output = a.engine.execute(job.id, ("python", "-c", "import socket; print(socket.gethostname())"))
    assert (code, output.decode().strip()) == (0, network.identity(job.job_id).hostname)
    assert a.engine.execute(job.id, ("sh", "-c", "exit 3"))[0] == 3


def test_bad_input_is_refused_in_a_sentence(fleet: Fleet, tmp_path: Path) -> None:
    a = fleet.hosts["a"]
    with pytest.raises(ImageMissing, match="load it or check its name"):
        a.engine.create(replace(fleet.raw_spec("true"), image="nobody/nothing:1"), tmp_path / "checkpoint")
    with pytest.raises(RuntimeNotRegistered, match=r'"runtimes": .*systemctl reload docker'):
        use_existing(a.docker.paths.socket, tmp_path / "everlease-runc")
    with pytest.raises(DaemonUnavailable):
        connect(tmp_path / "none.sock")
    use_existing(a.docker.paths.socket, a.state / "everlease-runc").close()


def test_capabilities_say_process_mode_or_why_not(fleet: Fleet) -> None:
    a = fleet.hosts["a"]
    found = capabilities(a.engine.client, a.checkpointer.tools)
    assert found.process_mode, found.reason
    assert found.docker
    assert found.runc
    without = capabilities(a.engine.client, replace(a.checkpointer.tools, criu=None))
    assert not without.process_mode
    assert "files mode" in without.reason


def test_a_lost_host_leaves_nothing_running_or_mounted(host_maker: Callable[[str, int], Host], fleet: Fleet) -> None:
    host = host_maker("d", 13)
    job = host.launch(fleet.raw_spec("python", "-c", LISTEN))
    until(lambda: host.steps(job.id) == ["up"])
    host.engine.close()
    guards.end_all(host.engine.state)
    host.docker.kill()
    assert host.docker.processes() == []
    assert not Path(f"/proc/{job.pid}").exists()
    assert str(host.root) not in Path("/proc/self/mountinfo").read_text()
    # Hierarchies that stay pile up until Docker's runtime no longer tells who ran out of memory.
    assert cgroups.layout_of(host.engine.state).root not in Path("/proc/self/cgroup").read_text()
    # The host comes back: its daemon starts again and still knows the container.
    host.engine.client = host.docker.start()
    (found,) = host.engine.list(job_id=job.job_id)
    assert found.status == "exited"
    with socket.socket(socket.AF_UNIX) as knock:
        knock.connect(str(host.docker.paths.socket))
    host.engine.remove_job(job.job_id)
    host.docker.stop()
    assert host.docker.processes() == []


ZOMBIE = """
import os, time
if not os.fork():
    os._exit(3)
for n in range(10 ** 6):
    print("ok", n, flush=True)
    time.sleep(0.02)
"""


def test_images_with_a_hole_in_their_walls_are_refused_and_sound_ones_restored(fleet: Fleet) -> None:
    """A hostile host leaves out the read-only /proc/sys, through which root of a container owns the machine."""
    a, b = fleet.hosts["a"], fleet.hosts["b"]
    spec = fleet.raw_spec("python", "-c", ZOMBIE)
    first = a.launch(spec)
    until(lambda: len(a.steps(first.id)) > 3)
    dump = a.checkpointer.dump(first.id, fleet.dump_path(), stay_frozen=True).path
    (table,) = (dump / "criu").glob("mountpoints-*.img")
    sound = table.read_bytes()
    kept = [entry for entry in messages(table) if dict(fields(entry)).get(7) != b"/proc/sys"]
    table.write_bytes(sound[:8] + b"".join(len(entry).to_bytes(4, "little") + entry for entry in kept))
    with pytest.raises(CheckpointRefused, match="leaves /proc/sys writable"):
        b.receive(replace(spec, fence=2), dump)
    assert b.engine.list(job_id=spec.job_id) == ()
    table.write_bytes(sound)
    second = b.receive(replace(spec, fence=3), dump)
    until(lambda: len(b.steps(second.id)) > 3)
    code, output = b.engine.execute(second.id, ("sh", "-c", "echo 1 >/proc/sys/kernel/core_pattern"))
    assert (code != 0, b"Read-only" in output) == (True, True)
    # Device nodes may lie in what was restored: cgroup v1 denies them, as it does for a fresh container.
    groups = (line.split(":") for line in Path(f"/proc/{second.pid}/cgroup").read_text().splitlines())
    for _, controllers, path in groups:
        if "devices" in controllers.split(","):
            allowed = Path(f"/sys/fs/cgroup/devices{path}/devices.list").read_text().splitlines()
            assert not [rule for rule in allowed if rule[0] == "a" or (rule[0] == "b" and "r" in rule.split()[2])]
