"""Three hosts on one machine: a Docker daemon each, in network namespaces that meet in a fourth, the "internet"."""

import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from everlease.image_archive import read_archive
from provider_agent import cgroups, guard, guards
from provider_agent.runtime import network, oci, restore
from provider_agent.runtime.checkpoint import Checkpointer, HostTools
from provider_agent.runtime.container import ContainerEngine, ContainerSpec, JobContainer, Limits
from provider_agent.runtime.daemon import DaemonPaths, HostDocker

ROOT = Path(__file__).parents[3]
ZOO = ROOT / "tests" / "zoo"
INTERNET = "203.0.113.1"
ECHO = """
import socket, threading
server = socket.create_server(("203.0.113.1", 9000))
def echo(peer):
    while data := peer.recv(100):
        peer.sendall(data)
print("ready", flush=True)
while True:
    threading.Thread(target=echo, args=(server.accept()[0],), daemon=True).start()
"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("docker")


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@dataclass
class Host:
    name: str
    root: Path
    docker: HostDocker
    engine: ContainerEngine
    checkpointer: Checkpointer
    address: str

    @property
    def state(self) -> Path:
        return self.engine.state

    def folder(self, container: str) -> Path:
        return oci.container_folder(self.state, container)

    def arm(self, container: str, seconds: float = 600) -> None:
        guards.extend(self.folder(container), guard.boottime() + seconds)
        guards.ensure(self.folder(container))

    def output(self, container: str) -> bytes:
        return b"".join(line.text for line in self.engine.logs(container))

    def steps(self, container: str) -> list[str]:
        return self.output(container).decode().splitlines()

    def last(self, container: str) -> int:
        lines = self.steps(container)
        assert all(line.startswith("ok") for line in lines), lines[-20:]
        return int(lines[-1].split()[1]) if lines else 0

    def settled(self, container: str) -> list[str]:
        """The lines of a container that stands still, once all of them have come through the pipes to Docker."""
        give_up = time.monotonic() + 30
        before, lines = None, self.steps(container)
        while lines != before:
            assert time.monotonic() < give_up, "it goes on printing"
            time.sleep(0.4)
            before, lines = lines, self.steps(container)
        return lines

    def launch(self, spec: ContainerSpec) -> JobContainer:
        made = self.engine.create(spec, self.root / "checkpoints" / spec.name)
        self.arm(made.id)
        self.engine.start(made.id)
        return self.engine.inspect(made.id)

    def receive(self, spec: ContainerSpec, dump: Path) -> JobContainer:
        made = restore.prepare(self.engine, spec, dump, self.root / "checkpoints" / spec.name)
        self.arm(made.id)
        return restore.start(self.engine, made).container


@dataclass
class Fleet:
    hosts: dict[str, Host]
    root: Path
    image: str
    jobs: list[str] = field(default_factory=list)

    def spec(self, program: str, *args: str, mode: str = "process") -> ContainerSpec:
        source = (ZOO / f"{program}.py").read_text()
        return self.raw_spec("python", "-c", source, *args, mode=mode)

    def raw_spec(self, *command: str, mode: str = "process") -> ContainerSpec:
        """A job whose Python writes each line at once, so that no checkpoint falls within a line."""
        job = f"0x{uuid.uuid4().hex}{uuid.uuid4().hex}"
        self.jobs.append(job)
        return ContainerSpec(
            job,
            1,
            self.image,
            Limits(cpus=1, memory_bytes=1 << 30, disk_bytes=1 << 30),
            command,
            env={"PYTHONUNBUFFERED": ""},
            mode=mode,
        )

    def dump_path(self) -> Path:
        return self.root / "dumps" / uuid.uuid4().hex[:12]

    def forget(self) -> None:
        for host in self.hosts.values():
            for job in self.jobs:
                host.engine.remove_job(job)
        self.jobs.clear()
        shutil.rmtree(self.root / "dumps", ignore_errors=True)


def until(condition: Callable[[], bool], seconds: float = 30, *, every: float = 0.05) -> None:
    give_up = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up, "it did not happen in time"
        time.sleep(every)


def until_steps(host: Host, container: JobContainer, count: int) -> None:
    """Wait for so many lines on this host."""
    until(lambda: host.last(container.id) > 0 and len(host.steps(container.id)) >= count)


@pytest.fixture(scope="session")
def tools(tmp_path_factory: pytest.TempPathFactory) -> HostTools:
    """runc, and a CRIU whose file has a name of its owner's choice."""
    build = [sys.executable, ROOT / "scripts" / "criu_wheel.py", "--prefix", ROOT / ".tools" / "criu"]
    subprocess.run(build, check=True, capture_output=True)
    runc = shutil.which("runc")
    assert runc, "these tests need Docker and runc: apt-get install docker.io"
    criu = tmp_path_factory.mktemp("criu") / "criu-4"
    criu.symlink_to(ROOT / ".tools" / "criu" / "criu")
    return HostTools(Path(runc), criu)


@pytest.fixture(scope="session")
def image() -> Path:
    subprocess.run([ROOT / "scripts" / "make_image.sh"], check=True, capture_output=True)
    return ROOT / ".build" / "image.tar"


@pytest.fixture(scope="session")
def internet() -> Iterator[str]:
    """A namespace with a bridge at INTERNET and an echo server on port 9000; yields its name."""
    name = f"eli-{uuid.uuid4().hex[:6]}"
    ip("netns", "add", name)
    try:
        ip("-n", name, "link", "set", "lo", "up")
        ip("-n", name, "link", "add", "wan", "type", "bridge")
        ip("-n", name, "addr", "add", f"{INTERNET}/24", "dev", "wan")
        ip("-n", name, "link", "set", "wan", "up")
        argv = ["nsenter", f"--net=/run/netns/{name}", "--", sys.executable, "-c", ECHO]
        with subprocess.Popen(argv, stdout=subprocess.PIPE) as server:
            assert server.stdout is not None
            assert server.stdout.readline() == b"ready\n"
            yield name
            server.kill()
    finally:
        ip("netns", "del", name)


@pytest.fixture(scope="session")
def host_maker(tools: HostTools, image: Path, internet: str) -> Iterator[Callable[[str, int], Host]]:
    root = Path("/tmp") / f"elr-{uuid.uuid4().hex[:6]}"
    made: list[tuple[HostDocker, str, ContainerEngine]] = []

    def make(name: str, number: int) -> Host:
        netns, link = f"{root.name}-{name}", f"{root.name[-6:]}{name}"
        ip("netns", "add", netns)
        ip("-n", netns, "link", "set", "lo", "up")
        ip("link", "add", link, "netns", internet, "type", "veth", "peer", "name", "eth0", "netns", netns)
        ip("-n", internet, "link", "set", link, "master", "wan", "up")
        ip("-n", netns, "addr", "add", f"203.0.113.{number}/24", "dev", "eth0")
        ip("-n", netns, "link", "set", "eth0", "up")
        ip("-n", netns, "route", "add", "default", "via", INTERNET)
        base = root / name
        wrapper = oci.install_wrapper(base / "state", runc=tools.runc, criu=tools.criu)
        cgroups.set_up(base / "state", cgroups.private_root(base / "state"))
        docker = HostDocker(DaemonPaths(base / "data", base / "run"), wrapper=wrapper, netns=Path("/run/netns") / netns)
        engine = ContainerEngine(docker.start(), base / "state")
        made.append((docker, netns, engine))
        network.Firewall(docker.netns).install()
        engine.images.load(read_archive(image))
        return Host(name, base, docker, engine, Checkpointer(tools, base / "state"), f"203.0.113.{number}")

    try:
        yield make
    finally:
        for docker, netns, engine in made:
            guards.end_all(engine.state)
            docker.purge()
            guards.teardown(engine.state)
            engine.close()
            ip("netns", "del", netns)
        shutil.rmtree(root, ignore_errors=True)


@pytest.fixture(scope="session")
def all_hosts(host_maker: Callable[[str, int], Host], image: Path) -> Fleet:
    hosts = {name: host_maker(name, number) for name, number in (("a", 11), ("b", 12), ("c", 14))}
    return Fleet(hosts, hosts["a"].root.parent, read_archive(image).digest)


@pytest.fixture
def fleet(all_hosts: Fleet) -> Iterator[Fleet]:
    yield all_hosts
    all_hosts.forget()
