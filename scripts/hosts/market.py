"""The market outside the guests: chain, services and store on the machine, at an address that guests reach as well."""

import ipaddress
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from everlease.chain.deployment import Deployment
from everlease.chain.keys import load_keystore
from everlease.chain.rpc import RpcChain
from everlease.cli.context import Wallet
from everlease.cli.launch import launch
from everlease.cli.market import Market, TokenCache
from everlease.db import Database, evidence
from everlease.domain.job import ENDED, JobState
from everlease.stack import keys as dev
from everlease.stack.accounts import Accounts, ProviderKeys
from everlease.stack.local import LocalStack
from everlease.stack.network import free_subnet, tag_of
from everlease.stack.plan import StackPlan
from everlease.wire.http import JobList, JobOut, NodeList, WishRequest
from everlease.wire.jobfile import JobFile
from hosts.payload import REFERENCE, ArchiveImage

FENCE_S = 45
SLOW = {"fence_after": str(FENCE_S)}
RECOVERY = {
    **SLOW, "suspect_after": "30", "probe_timeout": "10", "reconnect_grace": "20", "recovery_window": "4",
    "auction_window": "4", "reorg_grace": "60", "keep_checkpoints": "3", "restart_grace": "240", "idle_after": "900",
    "max_restarts_a_day": "50",
}  # fmt: skip
MARKETPLACE = {**SLOW, "suggested_max_silence": "120", "shun_base_s": "1", "shun_max_s": "5"}
"""Times for guests that are 10 to 20 times slower than the machine; seconds."""
_starting = threading.Lock()
"""Two markets that start at once would look for free addresses, and compile contracts, at once."""


class Stuck(Exception):
    """Something that a scenario waits for did not happen; the message says what, and what the job's state is."""


@dataclass(frozen=True, slots=True)
class HostIdentity:
    """Who a guest is in the market: addresses, and the node's keystore."""

    index: int
    provider: str
    node: str
    keystore: Path


class BenchMarket:
    """One market for a column of the bench, in ``home``."""

    def __init__(self, root: Path, home: Path) -> None:
        self.stack = LocalStack(root, home)
        self._address_file = home / "address"

    def up(self, note: Callable[[str], None], *, keep: bool = False) -> None:
        """Start it, or with ``keep`` take up the one that an earlier call left running. Raises StackError."""
        terms = {"answerWindow": 120, "minRuntime": 60, "unbondingPeriod": 240}
        if not (keep and self._alive()):
            self.forget()
            self.stack.home.mkdir(parents=True, exist_ok=True)
            with _starting:
                address = str(free_subnet(tag_of(self.stack.home)).network_address + 1)
                _address("add", address)
                self._address_file.write_text(address, encoding="ascii")
                plan = StackPlan(host=address, terms=terms, marketplace=MARKETPLACE, recovery=RECOVERY)
                self.stack.up(plan, note)
        self.state = self.stack.state()
        self.database = Database(self.state.database_url, pool_size=2)
        chain = RpcChain.connect([self.state.rpc_url])
        deployment = Deployment.load(Path(self.state.deployments))
        self._accounts = Accounts(chain, deployment, self.stack.home / "wallets")
        tenant = load_keystore(self.stack.keys.path("tenant"), self.password)
        self.wallet = Wallet(tenant, chain, deployment, self.stack.home / "wallets")
        self.client = Market(self.state.market_url, self.wallet.key, TokenCache(self.stack.home / "tokens.json"))
        self._image = ArchiveImage()
        self._end_jobs()

    def _end_jobs(self) -> None:
        """Cancel what an earlier call that was killed left running."""
        for job in self.client.get("/v1/jobs", JobList, params={"limit": 200}).items:
            if JobState(job.state) not in ENDED:
                BenchJob(self, job.id).ask("cancel", "the bench was started anew")

    def _alive(self) -> bool:
        processes = self.stack.status()
        return bool(processes) and all(process["alive"] for process in processes)

    def forget(self) -> None:
        """Stop and delete what an earlier run left, its address included."""
        self.down()
        self.stack.purge()

    def down(self) -> None:
        """Stop it and take the address away."""
        self.stack.down()
        if self._address_file.exists():
            _address("del", self._address_file.read_text(encoding="ascii"))
            self._address_file.unlink()

    @property
    def password(self) -> str:
        return self.stack.keys.password()

    def identity(self, index: int) -> HostIdentity:
        """A provider with stake and its one authorised node; ``index`` from 1 to 16."""
        keys = self.stack.keys
        provider = keys.put(f"provider-{index}", dev.FIRST_PROVIDER + index)
        node = keys.put(f"node-{index}", dev.FIRST_NODE + index)
        self._accounts.prepare(self.wallet.key, 1000 * 10**6, [ProviderKeys(provider, node)], 100 * 10**6)
        return HostIdentity(index, provider.address, node.address, keys.path(f"node-{index}"))

    def connected(self, node: str) -> bool:
        """Whether this node's agent has a connection."""
        answer = self.client.get("/v1/nodes", NodeList, signed_in=False, params={"limit": 200})
        return any(item.node.lower() == node.lower() and item.connected for item in answer.items)

    def launch(self, name: str, command: list[str], **changes: object) -> "BenchJob":
        """Post and fund a job that runs ``command`` in the bench's image."""
        text: dict[str, object] = {
            "name": name, "image": REFERENCE, "command": command,
            "resources": {"cpus": 0.5, "memory": "512MiB", "disk": "1GiB"},
            "max_price_per_hour": "0.50", "deposit": "5.00",
            "checkpoint": {"mode": "process", "max_lost_work": "120s", "min_interval": "20s"},
            "recovery": {"max_recoveries": 20},
        }  # fmt: skip
        job = JobFile.model_validate({**text, **changes})
        launched = launch(self.client, self.wallet, self._image, job)  # type: ignore[arg-type]
        return BenchJob(self, launched.job.id)


class BenchJob:
    """One job as the market sees it."""

    def __init__(self, market: BenchMarket, job_id: str) -> None:
        self.market, self.id = market, job_id

    def row(self) -> dict[str, Any]:
        with self.market.database.transaction() as tx:
            return evidence.job(tx, self.id)

    def state(self) -> JobState:
        return JobState(self.row()["state"])

    def node(self) -> str:
        """The node of the newest award."""
        awards = self.awards()
        return str(awards[-1]["node"]).lower() if awards else ""

    def awards(self) -> list[dict[str, Any]]:
        """All tenures, by fence."""
        with self.market.database.transaction() as tx:
            return evidence.awards(tx, self.id)

    def restarts(self) -> int:
        """How many restarts of the program were counted, over all awards."""
        return sum(int(award["restarts"]) for award in self.awards())

    def checkpoints(self) -> list[dict[str, Any]]:
        with self.market.database.transaction() as tx:
            return evidence.checkpoints(tx, self.id)

    def history(self) -> list[dict[str, Any]]:
        with self.market.database.transaction() as tx:
            return evidence.history(tx, self.id)

    def output(self) -> list[dict[str, Any]]:
        """Pieces of output that the marketplace kept."""
        with self.market.database.transaction() as tx:
            return evidence.output(tx, self.id)

    def ask(self, verb: str, reason: str = "bench") -> None:
        """The tenant's wish: checkpoint, migrate, hibernate, resume, cancel."""
        self.market.client.post(f"/v1/jobs/{self.id}/{verb}", JobOut, WishRequest(reason=reason), spends=True)

    def wait(self, what: str, done: Callable[[], bool], timeout_s: float) -> float:
        """Poll until ``done``; returns seconds. Raises Stuck when time is up or the job ended unasked."""
        began = time.monotonic()
        while not done():
            state = self.state()
            if state in ENDED and state is not JobState.SUCCEEDED:
                raise Stuck(f"{what}: the job has ended as {state.value} ({self._last_events()})")
            if time.monotonic() - began > timeout_s:
                raise Stuck(f"{what}: not within {timeout_s:.0f} s, job {state.value} ({self._last_events()})")
            time.sleep(0.5)
        return time.monotonic() - began

    def _last_events(self) -> str:
        return "; ".join(f"{event['kind']} {event['data']}" for event in self.history()[-4:])[-700:]


def _address(verb: str, address: str) -> None:
    """Add or delete an address of the loopback link: guests reach it through QEMU, nobody else does."""
    argv = ["ip", "address", verb, f"{ipaddress.IPv4Address(address)}/32", "dev", "lo"]
    subprocess.run(argv, capture_output=True, check=False)
