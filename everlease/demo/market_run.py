"""The tenant's side of the demo: launch, watch, fetch, settle, through the same functions as the command line's."""

import time
from collections.abc import Callable, Iterable
from pathlib import Path

from everlease.chain.deployment import Deployment
from everlease.chain.keys import load_keystore
from everlease.chain.rpc import RpcChain
from everlease.cli import payments
from everlease.cli.context import Wallet
from everlease.cli.images import LocalImages
from everlease.cli.launch import launch
from everlease.cli.market import Market, TokenCache
from everlease.cli.outputs import fetch_outputs
from everlease.db import Database, evidence
from everlease.demo.errors import DemoStuck
from everlease.demo.params import DemoParams
from everlease.demo.reference import LOSS_FILE
from everlease.demo.steps import Step, from_pieces
from everlease.demo.timeline import Timeline, describe
from everlease.domain.job import ENDED, JobState
from everlease.domain.lease import ENDED as LEASE_ENDED
from everlease.domain.lease import LeaseState
from everlease.stack import keys as dev
from everlease.stack.local import LocalStack
from everlease.stack.plan import StackState

PATIENCE_S = 240.0
POLL_S = 0.25


class MarketRun:
    """One job of one tenant. Waiting prints what happens to it meanwhile."""

    def __init__(self, stack: LocalStack, state: StackState, params: DemoParams, timeline: Timeline) -> None:
        self._stack, self._state, self._params, self._timeline = stack, state, params, timeline
        self.database = Database(state.database_url, pool_size=2)
        chain = RpcChain.connect([state.rpc_url])
        deployment = Deployment.load(Path(state.deployments))
        self._wallets = Path(state.home) / "wallets"
        tenant = load_keystore(stack.keys.path("tenant"), stack.keys.password())
        self.wallet = Wallet(tenant, chain, deployment, self._wallets)
        self._market = Market(state.market_url, self.wallet.key, TokenCache(Path(state.home) / "tokens.json"))
        self._names = {node.node.lower(): node.name for node in state.nodes}
        self._told = 0
        self._image_socket: Path | None = None
        self.job_id = ""

    def close(self) -> None:
        """Close connections."""
        self._market.close()
        self.wallet.chain.close()
        self.database.close()

    def load_image(self, socket: Path, archive: Path) -> str:
        """Give the image to the daemon from which the tenant will launch; returns its id."""
        self._image_socket = socket
        images = LocalImages(socket)
        try:
            images.load(archive)
            return images.local_id(self._params.job().image)
        finally:
            images.close()

    def launch(self) -> None:
        """Upload, sign, post, fund."""
        images = LocalImages(self._image_socket)
        try:
            launched = launch(self._market, self.wallet, images, self._params.job())
        finally:
            images.close()
        self.job_id, self._order = launched.job.id, launched.job.order.to_domain()
        self._timeline.note("money", f"job {self.job_id[:10]}… posted and funded")
        self._wait("the job's start", lambda: self._job_state() == JobState.RUNNING)

    def fence(self) -> int:
        """The job's present fence."""
        with self.database.transaction() as tx:
            return int(evidence.job(tx, self.job_id)["fence"])

    def node(self) -> str:
        """The node that holds the present award."""
        with self.database.transaction() as tx:
            return str(evidence.awards(tx, self.job_id)[-1]["node"])

    def steps(self) -> list[Step]:
        """Every step that the marketplace kept."""
        with self.database.transaction() as tx:
            return from_pieces(evidence.output(tx, self.job_id))

    def work_in_peace(self, steps: int) -> None:
        """Until this host has committed a checkpoint and done so many steps after it."""
        fence = self.fence()

        def enough() -> bool:
            committed = self._first_commit(fence)
            return committed is not None and sum(s.fence == fence and s.at > committed for s in self.steps()) >= steps

        self._wait(f"a checkpoint and {steps} more steps on {self._names[self.node().lower()]}", enough, may_end=False)

    def await_next_host(self, fence: int) -> int:
        """Until the job works under a later fence than this; returns that fence."""

        def works() -> bool:
            current = self.fence()
            return (
                current > fence
                and self._job_state() == JobState.RUNNING
                and any(step.fence == current for step in self.steps())
            )

        self._wait("the job on its next host", works, may_end=False)
        last = self.steps()[-1]
        self._timeline.note("good", f"{self._names[self.node().lower()]} goes on, at step {last.number}")
        return self.fence()

    def await_refusals(self, kinds: Iterable[str], patience: float = 30.0) -> None:
        """Until the gateway has refused each kind of a late act, or patience ends (the report says what lacks)."""
        wanted = set(kinds)
        try:
            self._wait("the zombie's refusals", lambda: wanted <= set(self._refused()), patience)
        except DemoStuck:
            self._timeline.note("incident", f"refused so far: {self._refused()}")
            return
        self._timeline.note("good", f"refused of the zombie: {self._refused()}")

    def await_end(self) -> None:
        """Until the job has ended."""
        self._wait("the job's end", lambda: self._job_state() in ENDED, PATIENCE_S * 2)
        self._timeline.note("good", f"the job has {self._job_state()}")

    def fetch_loss(self, target: Path) -> bytes:
        """The loss file, decrypted, out of the job's last checkpoint."""
        fetched = fetch_outputs(self._market, self.job_id, target)
        self._timeline.note(
            "good", f"outputs fetched from the store: {fetched.files} files of checkpoint {fetched.seq}"
        )
        return (target / "upper" / LOSS_FILE.lstrip("/")).read_bytes()

    def await_settlement(self) -> None:
        """Until no lease of the job is open or disputed."""

        def settled() -> bool:
            with self.database.transaction() as tx:
                leases = evidence.leases(tx, self.job_id)
            return bool(leases) and all(LeaseState(row["state"]) in LEASE_ENDED for row in leases)

        self._wait("the leases' ends", settled)
        with self.database.transaction() as tx:
            for row in evidence.leases(tx, self.job_id):
                paid, slashed = row["paid"] / 1e6, row["slashed"] / 1e6
                text = f"lease {row['epoch']} of {self._names[row['node']]}: {row['state']}, ${paid:.6f} paid, "
                text += f"${slashed:.6f} slashed"
                self._timeline.note("money", text)

    def cash_out(self) -> tuple[int, dict[str, int]]:
        """The tenant's refund, then each provider's earnings; what was withdrawn by whom (base units)."""
        refunded = payments.refund_and_withdraw(self.wallet, self._order)
        self.wallet.send("sweep of fees", self.wallet.escrow.sweep_fees(self.job_id))
        withdrawn = {}
        for node in self._state.nodes:
            index = node.index
            key = load_keystore(self._stack.keys.path(f"provider-{index}"), self._stack.keys.password())
            amount = payments.withdraw(Wallet(key, self.wallet.chain, self.wallet.deployment, self._wallets))
            if amount:
                withdrawn[f"provider-{index}"] = amount
        return refunded, withdrawn

    def parties(self) -> dict[str, str]:
        """Everyone who ever held the asset, by name."""
        named = {"tenant": dev.TENANT, "watcher": dev.WATCHER, "treasury": dev.TREASURY, "insurance": dev.INSURANCE}
        parties = {name: dev.development_key(index).address for name, index in named.items()}
        parties |= {f"provider-{node.index}": node.provider for node in self._state.nodes}
        parties |= {f"node-{node.index}": node.node for node in self._state.nodes}
        return parties

    def _job_state(self) -> JobState:
        with self.database.transaction() as tx:
            return JobState(evidence.job(tx, self.job_id)["state"])

    def _first_commit(self, fence: int) -> float | None:
        with self.database.transaction() as tx:
            rows = [row for row in evidence.checkpoints(tx, self.job_id) if row["fence"] == fence]
        return float(rows[0]["committed_at"]) if rows else None

    def _refused(self) -> dict[str, int]:
        with self.database.transaction() as tx:
            return {row["kind"]: row["refused"] for row in evidence.refusals(tx, self.job_id)}

    def _wait(
        self, awaited: str, done: Callable[[], bool], patience: float = PATIENCE_S, *, may_end: bool = True
    ) -> None:
        began = time.monotonic()
        while not done():
            self._tell()
            state = self._job_state()
            ended = state in ENDED and (state != JobState.SUCCEEDED or not may_end)
            if ended or time.monotonic() - began > patience:
                raise DemoStuck(awaited, time.monotonic() - began, state.value)
            time.sleep(POLL_S)
        self._tell()

    def _tell(self) -> None:
        """Print what happened to the job since the last time."""
        with self.database.transaction() as tx:
            news = [row for row in evidence.history(tx, self.job_id) if row["id"] > self._told]
        for row in news:
            self._told = row["id"]
            text = describe(row["kind"], row["data"], self._names)
            if text is not None:
                self._timeline.note("job", text, row["at"])
