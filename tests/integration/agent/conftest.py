"""Real agents as processes, each with its own Docker daemon in its own network namespace; a gateway, a block store."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from everlease.chain.deployment import Deployment
from everlease.chain.keys import Key
from everlease.chain.typed_data import job_id, lease_id, order_digest
from everlease.domain.jobspec import CheckpointMode, CheckpointPolicy, JobSpec, Resources, spec_hash
from everlease.domain.terms import Order, lease_params
from everlease.store.block_service import BlockService
from everlease.store.local import LocalBlockStore
from everlease.store.plain import upload_plain
from everlease.store.service import create_block_app
from everlease.store.sessions import SessionLedger
from everlease.store.tokens import verify_token
from everlease.wire.commands import Prepare, Start, Stop
from everlease.wire.node import BidMessage, CallForBids
from everlease.wire.terms import OrderModel
from provider_agent import guards
from provider_agent.runtime import oci
from provider_agent.runtime.daemon import DaemonPaths, HostDocker, connect
from tests.integration.agent.gateway import SECRET, Gateway
from tests.support.deployed import TERMS

ROOT = Path(__file__).parents[3]
TENANT, WATCHER = Key.of(b"\x11" * 32), Key.of(b"\x22" * 32)
COUNTER = """
import os, sys, time, random
random.seed(7)
state = bytearray(os.urandom(1)) * (24 << 20)
log = open("/work.log", "a") if os.path.isdir("/") else None
for step in range(1, 100000):
    line = f"step {step} {random.random():.12f}\\n"
    log.write(line); log.flush()
    os.write(1, line.encode())  # at once: no checkpoint falls within a line
    time.sleep(0.05)
"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents and "world" in getattr(item, "fixturenames", ()):
            item.add_marker("docker")
            item.add_marker(pytest.mark.timeout(300))


@dataclass
class Agent:
    """One host: its agent process comes and goes, its Docker daemon and data stay."""

    name: str
    root: Path
    key: Key
    netns: str
    environment: dict[str, str]
    docker: HostDocker
    process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return self.key.address

    def start(self, crash_at: str | None = None) -> None:
        environment = {**os.environ, **self.environment}
        if crash_at:
            environment["EVERLEASE_AGENT_CRASH_AT"] = crash_at
        with (self.root / "agent.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "provider_agent"], cwd=ROOT, env=environment, stdout=log, stderr=log
            )

    def ended(self, seconds: float = 60) -> int:
        assert self.process is not None
        return self.process.wait(seconds)

    def kill(self) -> None:
        """kill -9 of the agent alone; guards and containers stay."""
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            self.process = None

    def log(self) -> str:
        path = self.root / "agent.log"
        return path.read_text() if path.exists() else ""


AUCTIONS = count(1)
"""Every call for bids has a number of its own."""


@dataclass
class Launch:
    """A job of a test: its order, spec, and what is needed to command it."""

    gateway: Gateway
    deployment: Deployment
    spec: JobSpec
    order: Order
    image_manifest: str
    id: str
    fence: int = 0
    epoch: int = 0
    generation: int = 0
    steps: int = 0

    def step(self, kind: str) -> str:
        self.steps += 1
        return f"{kind}-{self.steps}"

    def call(self, agent: Agent, **changes: Any) -> CallForBids:
        fields: dict[str, Any] = {
            "seq": 0,
            "auction_id": next(AUCTIONS),
            "order": OrderModel.from_domain(self.order),
            "order_hash": self.id,
            "order_signature": TENANT.sign(order_digest(self.deployment.escrow_domain, self.order)),
            "spec": asdict(self.spec),
            "epoch": self.epoch + 1,
            "closes_in_s": 1.0,
            "bids_until": int(time.time()) + 300,
            "image_digest": self.spec.image_digest,
        }
        return CallForBids(**{**fields, **changes})

    def award(self, agent: Agent) -> str:
        """Bid and award: the fence rises, the node owns the job; the lease's id."""
        bid = self.gateway.call(agent.address, self.call(agent))
        assert isinstance(bid, BidMessage), bid
        self.epoch, self.fence, self.generation = self.epoch + 1, self.fence + 1, self.generation + 1
        self.gateway.owner[self.id] = (agent.address, self.fence)
        self.rate = bid.signed.bid.min_rate_per_hour
        return lease_id(lease_params(self.order, bid.signed.bid.to_domain(), self.rate))

    def prepare(self, **changes: Any) -> Prepare:
        fields: dict[str, Any] = {
            "job_id": self.id,
            "fence": self.fence,
            "step": self.step("prepare"),
            "spec": asdict(self.spec),
            "image_manifest": self.image_manifest,
            "store_token": self.gateway.token(self.id),
        }
        return Prepare(**{**fields, **changes})

    def start(self, agent: Agent, lease: str, **changes: Any) -> Start:
        seq, head = self.gateway.heads.get(self.id, (0, None))
        generations = range(1, self.generation + 1)
        fields: dict[str, Any] = {
            "job_id": self.id,
            "fence": self.fence,
            "step": self.step("start"),
            "lease_id": lease,
            "epoch": self.epoch,
            "rate_per_hour": self.rate,
            "spec": asdict(self.spec),
            "checkpoint": head,
            "checkpoint_seq": seq,
            "checkpoint_node": self.gateway.authors.get(head or ""),
            "mode": "process",
            "generation": self.generation,
            "keys": {number: self.gateway.sealed(agent.address, self.id, number) for number in generations},
            "dedup_secret": self.gateway.sealed(agent.address, self.id, 0),
            "store_token": self.gateway.token(self.id),
            "max_silence": 6.0,
            "mtbf_s": 3600.0,
        }
        return Start(**{**fields, **changes})

    def run_on(self, agent: Agent) -> None:
        """Award, prepare and start; asserts that each went well."""
        lease = self.award(agent)
        prepared = self.gateway.do(agent.address, self.prepare())
        assert prepared.ok, prepared
        started = self.gateway.do(agent.address, self.start(agent, lease))
        assert started.ok, started

    def lines(self, fence: int | None = None) -> list[str]:
        raw = bytes(self.gateway.output.get((self.id, fence or self.fence), b""))
        return raw.decode().splitlines()

    def go_past(self, agent: Agent) -> None:
        """Wait for output of work that was done after this call: lines arrive later than the program writes them."""
        client = connect(agent.docker.paths.socket)
        (container,) = client.containers.list(filters={"label": f"io.everlease.job={self.id}"})
        client.close()
        made = Path(f"/proc/{container.attrs['State']['Pid']}/root/work.log").read_text().splitlines()
        self.gateway.until(lambda g: len(self.lines()) > len(made) + 5)

    def stop(self, agent: Agent) -> None:
        stop = Stop(job_id=self.id, fence=self.fence, step=self.step("stop"), grace_s=0)
        assert self.gateway.do(agent.address, stop).ok


@dataclass
class World:
    """Everything a test of agents needs."""

    gateway: Gateway
    deployment: Deployment
    agents: dict[str, Agent]
    image_digest: str
    image_manifest: str
    blocks: LocalBlockStore
    service: BlockService

    def job(self, source: str = COUNTER, *, nonce: int | None = None, **policy: Any) -> Launch:
        terms = {"mode": CheckpointMode.PROCESS, "max_lost_work_s": 300, "min_interval_s": 100} | policy
        spec = JobSpec(
            name="test",
            image="everlease/trainer:local",
            image_digest=self.image_digest,
            command=("python", "-c", source),
            resources=Resources(gpus=0, cpu_millis=500, memory_bytes=512 << 20, disk_bytes=256 << 20),
            checkpoint=CheckpointPolicy(**terms),
            max_recoveries=10,
            user="0",  # a machine that keeps CAP_SYS_RESOURCE from us proves no other
        )
        order = Order(
            tenant=TENANT.address,
            watcher=WATCHER.address,
            job_spec=spec_hash(spec),
            max_rate_per_hour=10**6,
            deposit=5 * 10**6,
            min_collateral=10**6,
            max_silence=6,
            max_epochs=50,
            epoch_fee=1000,
            deadline=int(time.time()) + 86_400,
            nonce=nonce if nonce is not None else uuid.uuid4().int,
        )
        identity = job_id(self.deployment.escrow_domain, order)
        return Launch(self.gateway, self.deployment, spec, order, self.image_manifest, identity)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@pytest.fixture(scope="session")
def _stage() -> Iterator[dict[str, Any]]:
    """Block service, image, deployments file and the hosts' daemons, once per session."""
    build = [sys.executable, ROOT / "scripts" / "criu_wheel.py", "--prefix", ROOT / ".tools" / "criu"]
    subprocess.run(build, check=True, capture_output=True)
    subprocess.run([ROOT / "scripts" / "make_image.sh"], check=True, capture_output=True)
    root = Path("/tmp") / f"ela-{uuid.uuid4().hex[:6]}"
    root.mkdir()
    blocks = LocalBlockStore(root / "store")
    service = BlockService(blocks, SessionLedger(), time.time)
    app = create_block_app(service, lambda token: verify_token(SECRET, token, now=time.time()))
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    port = server.servers[0].sockets[0].getsockname()[1]
    deployment = Deployment(31337, "0x" + "e5" * 20, "0x" + "57" * 20, "0x" + "a5" * 20, 0, TERMS)
    deployment.save(root / "deployments.json")
    image = ROOT / ".build" / "image.tar"
    plain = upload_plain(blocks, image)
    stage = {
        "root": root,
        "store": f"http://127.0.0.1:{port}",
        "blocks": blocks,
        "service": service,
        "deployment": deployment,
        "image_manifest": plain.cid,
        "image_digest": _image_id(image),
        "hosts": {},
    }
    yield stage
    for name, (docker, netns) in stage["hosts"].items():
        guards.end_all(root / name / "runtime")
        docker.purge()
        guards.teardown(root / name / "runtime")
        _ip("netns", "del", netns)
    server.should_exit = True
    thread.join(10)
    blocks.close()
    shutil.rmtree(root, ignore_errors=True)


def _image_id(archive: Path) -> str:
    listed = subprocess.run(["tar", "-xOf", archive, "manifest.json"], check=True, capture_output=True).stdout
    return "sha256:" + json.loads(listed)[0]["Config"].removesuffix(".json").rpartition("/")[2]


def _host(stage: dict[str, Any], name: str) -> tuple[HostDocker, str]:
    if name not in stage["hosts"]:
        netns = f"{stage['root'].name}-{name}"
        _ip("netns", "add", netns)
        _ip("-n", netns, "link", "set", "lo", "up")
        data = stage["root"] / name
        wrapper = oci.install_wrapper(data / "runtime", runc=Path(str(shutil.which("runc"))), criu=_criu())
        paths = DaemonPaths(data / "docker", data / "run")
        docker = HostDocker(paths, wrapper=wrapper, netns=Path("/run/netns") / netns)
        docker.start().close()
        stage["hosts"][name] = (docker, netns)
    found: tuple[HostDocker, str] = stage["hosts"][name]
    return found


def _criu() -> Path:
    return ROOT / ".tools" / "criu" / "criu"


@pytest.fixture
def world(_stage: dict[str, Any]) -> Iterator[World]:
    """A fresh gateway and two hosts whose agents are not started yet."""
    gateway = Gateway(_stage["deployment"])
    agents: dict[str, Agent] = {}
    for number, name in enumerate(("a", "b"), start=1):
        docker, netns = _host(_stage, name)
        key = Key.of(bytes([0x30 + number]) * 32)
        environment = {
            "DATA_DIR": str(_stage["root"] / name),
            "GATEWAY_URL": f"ws://127.0.0.1:{gateway.port}/v1/node",
            "STORE_URL": _stage["store"],
            "DEPLOYMENTS": str(_stage["root"] / "deployments.json"),
            "PROVIDER": Key.of(bytes([0x40 + number]) * 32).address,
            "NODE_KEY": key.secret.hex(),
            "WATCHERS": json.dumps([WATCHER.address]),
            "DOCKER_NETWORK": f"/run/netns/{netns}",
            "RUNC": str(shutil.which("runc")),
            "CRIU": str(_criu()),
            "DISK_RESERVE_BYTES": "0",
            "TRIAL_AFTER_S": "60",
        }
        prefixed = {f"EVERLEASE_AGENT_{name}": value for name, value in environment.items()}
        agents[name] = Agent(name, _stage["root"] / name, key, netns, prefixed, docker)
    yield World(
        gateway,
        _stage["deployment"],
        agents,
        _stage["image_digest"],
        _stage["image_manifest"],
        _stage["blocks"],
        _stage["service"],
    )
    for agent in agents.values():
        agent.kill()
    gateway.close()
    _keep_logs(agents)
    _wipe(agents)


def _keep_logs(agents: dict[str, Agent]) -> None:
    for agent in agents.values():
        print(f"--- agent {agent.name}", agent.log()[-6000:])
        (agent.root / "agent.log").unlink(missing_ok=True)


def _wipe(agents: dict[str, Agent]) -> None:
    """Jobs of the test off the hosts: the next agent finds no journal and sweeps what is left."""
    for agent in agents.values():
        for name in ("journal.db", "journal.db-wal", "journal.db-shm"):
            (agent.root / name).unlink(missing_ok=True)
