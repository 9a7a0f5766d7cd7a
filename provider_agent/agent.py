"""Puts an agent together from its settings and runs it until it is told to stop."""

import asyncio
import logging
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from subprocess import SubprocessError
from typing import Any

from everlease.chain.deployment import Deployment
from everlease.chain.rpc import RpcChain
from provider_agent import cgroups, disks, guards
from provider_agent.clock import SystemClock
from provider_agent.control import control_socket, lock_folder, stop_terms
from provider_agent.crash import CrashPoints
from provider_agent.heartbeat import Heartbeats
from provider_agent.host import Host
from provider_agent.identity import load_identity
from provider_agent.installation.criu import bundled
from provider_agent.journal import Journal
from provider_agent.link import Link
from provider_agent.mail import Mail
from provider_agent.runtime import oci
from provider_agent.runtime.checkpoint import Checkpointer, HostTools
from provider_agent.runtime.container import ContainerEngine
from provider_agent.runtime.daemon import DaemonPaths, HostDocker, use_existing
from provider_agent.runtime.daemon_identity import daemon_identity
from provider_agent.runtime.errors import RuntimeFault
from provider_agent.runtime.network import Firewall
from provider_agent.settings import AgentSettings
from provider_agent.settlement import TICK_S, URGENT_TICK_S, Settlement
from provider_agent.supervisor import Supervisor
from provider_agent.survey import Survey, follow

log = logging.getLogger(__name__)
THREADS = 32
FIREWALL_S, TIDY_S = 5.0, 900.0


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
        self._lock = lock_folder(settings.data_dir)
        identity = load_identity(settings, self.deployment.chain_id)
        criu = settings.criu or bundled()
        tools = HostTools(settings.runc, criu)
        state = settings.data_dir / "runtime"
        wrapper = oci.install_wrapper(state, runc=settings.runc, criu=criu)
        root = settings.slice or (cgroups.private_root(state) if settings.docker_socket is None else cgroups.ROOT)
        cgroups.join(cgroups.set_up(state, root), "agent", os.getpid())
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
        guards.sweep(state)
        dumper, daemon = Checkpointer(tools, state), partial(daemon_identity, self._socket)
        self.survey = Survey(settings, client, self.engine, dumper, daemon)
        facts = self.survey.first()
        self.journal = Journal(settings.data_dir / "journal.db", self.clock.unix)
        self._tidy()
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
            dumper=dumper,
            facts=facts,
            disks=disks.of_jobs(settings.data_dir, client.info()),
            messenger=self.mail,
            deadline=self.heartbeats.deadline,
            daemon=daemon,
        )

    @property
    def _socket(self) -> Path:
        """Where the Docker daemon of our jobs answers."""
        if self.docker is not None:
            return self.docker.paths.socket
        assert self.settings.docker_socket is not None
        return self.settings.docker_socket

    async def run(self) -> bool:
        """Serve until SIGTERM or SIGINT, or until a stop or an emptying drain is done: True, it has left the market."""
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
            if request.get("command") == "stop":
                within_s, reason = stop_terms(request)
                return await supervisor.stop(within_s, reason)
            if request.get("command") == "restart":
                return await supervisor.restart()
            if request.get("command") == "status":
                return supervisor.status()
            return {"ok": False, "error": "the commands are drain, stop, restart and status"}

        async with control_socket(self.settings.data_dir / "agent.sock", answer):
            works = [self.link.run(supervisor), supervisor.beat_for_ever(), stop.wait(), supervisor.empty.wait()]
            host, tell = self.host, supervisor.tell_facts
            works.append(follow(self.survey, host.facts, host.free_disk, supervisor.idle, tell))
            works.append(self._keep_journal())
            tasks = [asyncio.ensure_future(work) for work in works]
            if self.firewall is not None:
                tasks.append(asyncio.ensure_future(self._keep_firewall(self.firewall)))
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
        return supervisor.empty.is_set()

    def _check_chain(self) -> None:
        """Raise WrongChain or BadDeployment where the RPC has not the deployment's contracts."""
        if not self.settings.rpc_urls:
            return
        chain = RpcChain.connect(self.settings.rpc_urls, chain_id=self.deployment.chain_id)
        try:
            self.deployment.check_if_reachable(chain)
        finally:
            chain.close()

    def _tidy(self) -> None:
        if not self.journal.tidy():
            log.warning("the disk is too full to set room aside for the journal")

    async def _keep_journal(self) -> None:
        while True:
            await asyncio.sleep(TIDY_S)
            await asyncio.to_thread(self._tidy)

    async def _keep_firewall(self, firewall: Firewall) -> None:
        """Whoever reloads the host's own rules takes ours away: put them back."""
        while True:
            await asyncio.sleep(FIREWALL_S)
            try:
                if await asyncio.to_thread(firewall.mend):
                    log.warning("rules of the jobs' firewall were gone or changed and are set again")
            except (RuntimeFault, OSError, SubprocessError) as error:
                log.error("the jobs' firewall can't be looked after: %s", error)

    async def _settle(self) -> None:
        """Settlement, tick by tick; the RPC may come and go."""
        chain = RpcChain.connect(self.settings.rpc_urls, chain_id=self.deployment.chain_id)
        settlement = Settlement(
            chain,
            self.deployment,
            self.host.identity.key,
            self.journal,
            provider=self.host.identity.provider,
            exposure=self.settings.collect_exposure,
            clock=self.clock.unix,
        )
        while True:
            await asyncio.to_thread(settlement.tick)
            await asyncio.sleep(URGENT_TICK_S if settlement.urgent else TICK_S)

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
            with suppress(RuntimeFault):
                guards.teardown(self.settings.data_dir / "runtime")
        # The journal stays open: SQLite would give its log's room back to a disk that may be full at the next start.
        os.close(self._lock)


def _own_daemon(settings: AgentSettings, wrapper: Path) -> HostDocker | None:
    if settings.docker_socket is not None:
        return None
    run = settings.docker_run_dir or settings.data_dir / "run"
    paths = DaemonPaths(settings.data_dir / "docker", run)
    return HostDocker(paths, wrapper=wrapper, netns=settings.docker_network)
