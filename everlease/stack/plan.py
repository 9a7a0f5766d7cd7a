"""What a local stack should be like, and what it is once it runs."""

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from everlease.domain.money import to_units
from everlease.stack.errors import NotUp

DEVELOPMENT_TERMS: dict[str, Any] = {"answerWindow": 60, "minRuntime": 60, "unbondingPeriod": 120}
"""Overrides of scripts/terms.json: short windows, so that one can watch them end."""


@dataclass(frozen=True, slots=True)
class StackPlan:
    """How many hosts, which terms, how much money (base units); ``agent`` overrides settings of every agent.

    ``host``: where the services listen when there are no hosts of our own; it must be an address of this machine.
    """

    nodes: int = 0
    host: str = "127.0.0.1"
    terms: dict[str, Any] = field(default_factory=lambda: dict(DEVELOPMENT_TERMS))
    tenant_dollars: int = to_units(1000)
    provider_stake: int = to_units(100)
    agent: dict[str, str] = field(default_factory=dict)
    marketplace: dict[str, str] = field(default_factory=dict)
    recovery: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NodeState:
    """One development host. Addresses in lower case; ``data`` is its agent's folder, ``run`` its daemon's sockets."""

    index: int
    name: str
    provider: str
    node: str
    netns: str
    data: str
    run: str

    @property
    def docker_socket(self) -> Path:
        return Path(self.run) / "docker.sock"


@dataclass(frozen=True, slots=True)
class StackState:
    """Where everything is. The URLs of database and broker carry passwords, so the file is for its owner alone."""

    home: str
    tag: str
    host: str
    subnet: str
    forwarding: bool
    rpc_url: str
    market_url: str
    explorer_url: str
    database_url: str
    broker_url: str
    deployments: str
    tenant: str
    watcher: str
    nodes: tuple[NodeState, ...]

    def document(self) -> dict[str, Any]:
        """What may be shown: all but the URLs with passwords."""
        shown = asdict(self)
        del shown["database_url"], shown["broker_url"]
        return shown

    def save(self, path: Path) -> None:
        """Write it whole, mode 0600."""
        part = path.with_suffix(".part")
        part.unlink(missing_ok=True)
        handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(asdict(self), file, indent=1)
        part.replace(path)

    @classmethod
    def load(cls, path: Path) -> "StackState":
        """Read it back; raises NotUp."""
        try:
            raw = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise NotUp(path.parent) from None
        nodes = tuple(NodeState(**item) for item in raw.pop("nodes"))
        return cls(**raw, nodes=nodes)
