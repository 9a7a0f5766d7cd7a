"""What happens to hosts: a power cut, a cut cable that is plugged in again, a drain."""

import json
import time
from pathlib import Path

from everlease.cli.provider import request_drain
from everlease.demo.steps import Step, from_docker
from everlease.demo.timeline import Timeline
from everlease.stack.local import LocalStack
from everlease.stack.nodes import Node
from everlease.stack.plan import StackState
from provider_agent import guard


class Saboteur:
    """Knows every host by its node's address; keeps what each host that was struck had printed."""

    def __init__(self, stack: LocalStack, state: StackState, timeline: Timeline) -> None:
        self.hosts = stack.nodes(state)
        self.names = {host.state.node.lower(): host.state.name for host in self.hosts}
        self.host_steps: dict[int, list[Step]] = {}
        self._timeline = timeline

    def host_of(self, node: str) -> Node:
        """The host of a node's address."""
        return next(host for host in self.hosts if host.state.node.lower() == node.lower())

    def strike(self, cause: str, host: Node, fence: int) -> float:
        """Do it; returns when (unix seconds)."""
        name = host.state.name
        if cause == "killed":
            at = self._timeline.note(
                "incident", f"(a) SIGKILL to everything on {name}: agent, guards, Docker, containers"
            )
            host.lose()
            self.host_steps[fence] = from_docker(Path(host.state.data) / "docker", fence)
        elif cause == "cut off":
            at = self._timeline.note("incident", f"(b) the link of {name} goes down")
            host.cut_off()
        else:
            at = self._timeline.note("incident", f"(c) {name} is drained by its provider")
            request_drain(Path(host.state.data), "maintenance")
        return at

    def bring_back(self, host: Node, fence: int) -> bool:
        """Plug the cable in again; returns whether the job's container there was frozen by then."""
        self.host_steps[fence] = from_docker(Path(host.state.data) / "docker", fence)
        frozen = self.frozen(host)
        self._timeline.note(
            "good" if frozen else "incident", f"the zombie on {host.state.name} had frozen itself: {frozen}"
        )
        host.reconnect()
        self._timeline.note("incident", f"the link of {host.state.name} is up again")
        return frozen

    def frozen(self, host: Node, patience: float = 10.0) -> bool:
        """Whether every running container of the host's agent is frozen, by the kernel and the guard's record."""
        give_up = time.monotonic() + patience
        while True:
            folders = [path.parent for path in Path(host.state.data).glob("runtime/containers/*/bundle.json")]
            running = [(folder, freezer) for folder in folders if (freezer := guard.find_freezer(folder)) is not None]
            if running and all(freezer.frozen() and (folder / "fenced").exists() for folder, freezer in running):
                record = json.loads((running[0][0] / "fenced").read_text(encoding="utf-8") or "{}")
                self._timeline.note(
                    "job", f"fenced {record.get('at', 0) - record.get('deadline', 0):.1f} s after its deadline"
                )
                return True
            if time.monotonic() > give_up:
                return False
            time.sleep(0.2)
