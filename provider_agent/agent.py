"""Puts an agent together from its settings and runs it until it is told to stop."""

import asyncio
import logging
import signal
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from everlease.chain.deployment import Deployment
from everlease.chain.rpc import RpcChain
from provider_agent import hardware
from provider_agent.clock import SystemClock
from provider_agent.control import control_socket
from provider_agent.crash import CrashPoints
from provider_agent.heartbeat import Heartbeats
from provider_agent.host import Host
from provider_agent.identity import load_identity
from provider_agent.journal import Journal
from provider_agent.link import Link
from provider_agent.mail import Mail
from provider_agent.runtime import oci
from provider_agent.runtime.capability import capabilities
from provider_agent.runtime.checkpoint import Checkpointer, HostTools
from provider_agent.runtime.container import ContainerEngine
from provider_agent.runtime.daemon import DaemonPaths, HostDocker, use_existing
from provider_agent.runtime.errors import RuntimeFault
from provider_agent.runtime.network import Firewall
from provider_agent.settings import AgentSettings
from provider_agent.settlement import TICK_S, Settlement
from provider_agent.supervisor import Supervisor

log = logging.getLogger(__name__)
THREADS = 32


class Agent:
    """Everything that is started before the first message: Docker, firewall, keys, journal. Blocks while it is made.

    Raises ConfigurationRefused, RuntimeFault, ChainError, OSError: each message says what to do.
    """

    def __init__(self, settings: AgentSettings) -> None:
        self.settings, self.clock = settings, SystemClock()
        settings.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        crash = CrashPoints(settings.crash_at)
        self.deployment = Deployment.load(settings.deployments)
        self._check_chain()
        identity = load_identity(settings, self.deployment.chain_id)
        tools = HostTools(settings.runc, settings.criu)
        state = settings.data_dir / "runtime"
        wrapper = oci.install_wrapper(state, runc=settings.runc, criu=settings.criu)
        self.docker = _own_daemon(settings, wrapper)
        if self.docker is not None:
            client = self.docker.start()
        else:
            assert settings.docker_socket is not None
            client = use_existing(settings.docker_socket, wrapper)
        self.firewall = Firewall(settings.docker_network) if settings.firewall else None
        if self.firewall is not None:
            self.firewall.install()
        self.engine = ContainerEngine(client, state)
        measured = hardware.measure(capabilities(client, tools), settings.data_dir)
        self.journal = Journal(settings.data_dir / "journal.db", self.clock.unix)
        self.link = Link(settings.gateway_url, identity, self.deployment.escrow_domain, self.journal, self.clock)
        self.mail, self.heartbeats = Mail(self.link), Heartbeats(self.clock)
        self.host = Host(
            settings=settings,
            identity=identity,
            chain_id=self.deployment.chain_id,
            escrow=self.deployment.escrow,
            journal=self.journal,
            clock=self.clock,
            crash=crash,
            engine=self.engine,
            dumper=Checkpointer(tools, state),
            facts=offered(measured.to_dict(), settings),
            requirements=as_text(measured.requirements(uses_gpu=bool(measured.gpus))),
            messenger=self.mail,
            deadline=self.heartbeats.deadline,
        )
        if not measured.runtime.process_mode:
            log.warning("%s", measured.runtime.reason)

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT, or until a drain that was to end the agent has emptied it."""
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(THREADS, thread_name_prefix="agent"))
        supervisor = Supervisor(self.host, self.link, self.mail, self.heartbeats)
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        loop.add_signal_handler(signal.SIGUSR1, supervisor.drain_soon, "SIGUSR1")
        supervisor.take_up()

        async def answer(request: dict[str, Any]) -> dict[str, Any]:
            if request.get("command") == "drain":
                reason = str(request.get("reason", "the provider drains this node"))
                return await supervisor.drain(reason, bool(request.get("exit_when_empty")))
            if request.get("command") == "status":
                return supervisor.status()
            return {"ok": False, "error": "the commands are drain and status"}

        async with control_socket(self.settings.data_dir / "agent.sock", answer):
            works = [self.link.run(supervisor), supervisor.beat_for_ever(), stop.wait(), supervisor.empty.wait()]
            tasks = [asyncio.ensure_future(work) for work in works]
            if self.settings.rpc_urls:
                tasks.append(asyncio.ensure_future(self._settle()))
            log.info("node %s serves provider %s", self.host.identity.key.address, self.host.identity.provider)
            try:
                done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                await supervisor.let_go()
        for task in done:
            if not task.cancelled():
                task.result()

    def _check_chain(self) -> None:
        """Raise WrongChain or BadDeployment where the RPC has not the deployment's contracts."""
        if not self.settings.rpc_urls:
            return
        chain = RpcChain.connect(self.settings.rpc_urls, chain_id=self.deployment.chain_id)
        try:
            self.deployment.check_if_reachable(chain)
        finally:
            chain.close()

    async def _settle(self) -> None:
        """Settlement, tick by tick; the RPC may come and go."""
        chain = RpcChain.connect(self.settings.rpc_urls, chain_id=self.deployment.chain_id)
        settlement = Settlement(
            chain,
            self.deployment,
            self.host.identity.key,
            self.journal,
            exposure=self.settings.collect_exposure,
            clock=self.clock.unix,
        )
        while True:
            await asyncio.to_thread(settlement.tick)
            await asyncio.sleep(TICK_S)

    def close(self) -> None:
        """Leave jobs to their guards and the next start; with ``teardown`` leave nothing running at all."""
        if self.settings.teardown:
            for record in self.journal.jobs():
                with suppress(RuntimeFault):
                    self.engine.remove_job(record.job_id)
                    self.journal.drop_job(record.job_id)
            if self.firewall is not None:
                self.firewall.remove()
            if self.docker is not None:
                self.docker.stop()
        self.journal.close()


def offered(facts: dict[str, Any], settings: AgentSettings) -> dict[str, Any]:
    """The measured facts, with less to offer where the provider says so."""
    if settings.cpu_millis is not None:
        facts = facts | {"cores": max(settings.cpu_millis // 1000, 1)}
    if settings.memory_bytes is not None:
        facts = facts | {"memory_bytes": min(settings.memory_bytes, int(facts["memory_bytes"]))}
    return facts


def as_text(requirements: dict[str, Any]) -> dict[str, str]:
    """Requirements as a manifest holds them: lists become words (everlease.domain.compat reads both)."""
    return {
        name: " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
        for name, value in requirements.items()
    }


def _own_daemon(settings: AgentSettings, wrapper: Path) -> HostDocker | None:
    if settings.docker_socket is not None:
        return None
    run = settings.docker_run_dir or settings.data_dir / "run"
    paths = DaemonPaths(settings.data_dir / "docker", run)
    return HostDocker(paths, wrapper=wrapper, netns=settings.docker_network)
