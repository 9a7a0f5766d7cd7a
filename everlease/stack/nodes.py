"""Development hosts: network namespace, Docker daemon (the agent's own) and agent each; and the ways to hurt them."""

import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from everlease.stack.errors import MissingTool, NeedsRoot
from everlease.stack.network import HostNetwork
from everlease.stack.plan import NodeState
from everlease.stack.processes import ProcessRecord, ProcessTable
from everlease.stack.services import environment
from provider_agent import guards
from provider_agent.runtime.daemon import DaemonPaths, HostDocker

RUN = Path("/run")


def check_host() -> None:
    """Raise StackError where this machine can't hold development hosts, with what to do."""
    if os.geteuid() != 0:
        raise NeedsRoot
    for tool, package in (
        ("dockerd", "docker.io"),
        ("ip", "iproute2"),
        ("iptables", "iptables"),
        ("nsenter", "util-linux"),
    ):
        if shutil.which(tool) is None:
            raise MissingTool(tool, f"run 'apt-get install -y {package}'; without nodes the market itself works")


class Node:
    """One development host."""

    def __init__(self, state: NodeState, table: ProcessTable, network: HostNetwork, root: Path) -> None:
        self.state, self._table, self._network, self._root = state, table, network, root
        paths = DaemonPaths(Path(state.data) / "docker", Path(state.run))
        self.docker = HostDocker(
            paths, wrapper=Path(state.data) / "everlease-runc", netns=Path("/run/netns") / state.netns
        )

    @property
    def process_name(self) -> str:
        return f"agent-{self.state.index}"

    def create(self) -> None:
        """Make folders and network."""
        for folder in (self.state.data, self.state.run):
            Path(folder).mkdir(parents=True, exist_ok=True, mode=0o700)
        self._network.add_node(self.state.index)

    def start_agent(self, settings: Mapping[str, object]) -> ProcessRecord:
        """Start the agent in the node's network; it starts the Docker daemon itself."""
        criu = self._root / ".tools" / "criu" / "criu"
        merged = {
            **settings,
            "data_dir": self.state.data,
            "provider": self.state.provider,
            "docker_run_dir": self.state.run,
            "docker_network": f"/run/netns/{self.state.netns}",
            "criu": criu if criu.exists() else None,
            "teardown": "true",
        }
        argv = [sys.executable, "-m", "provider_agent"]
        env = environment("AGENT", merged)
        return self._table.start(self.process_name, argv, env=env, cwd=self._root, netns=self.state.netns)

    def cut_off(self) -> None:
        """Take the link down; everything on the host goes on."""
        self._network.disconnect(self.state.index)

    def reconnect(self) -> None:
        """Put the link up again."""
        self._network.connect(self.state.index)

    def lose(self) -> None:
        """SIGKILL agent, guards, Docker and containers at once, as a power cut would; nothing is cleaned up."""
        agent = self._table.get(self.process_name)
        if agent is not None:
            self._table.kill(agent)
        guards.end_all(self.runtime)
        self.docker.kill()

    @property
    def runtime(self) -> Path:
        """The agent's state folder: containers' folders, guards."""
        return Path(self.state.data) / "runtime"

    def stop(self) -> None:
        """Stop the agent, which stops jobs and daemon; then whatever is left of them; then the network."""
        agent = self._table.get(self.process_name)
        if agent is not None:
            self._table.stop(agent, timeout=45)
        guards.end_all(self.runtime)
        self.docker.kill()
        guards.teardown(self.runtime)
        self._network.remove_node(self.state.index)
        shutil.rmtree(self.state.run, ignore_errors=True)
