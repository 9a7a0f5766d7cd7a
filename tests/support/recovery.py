"""A recovery desk on real PostgreSQL and Anvil, and scripted nodes: rows written as the gateway would write them."""

import itertools
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import select

from everlease.chain.contracts import EscrowCalls
from everlease.chain.keys import Key
from everlease.chain.sender import Sender, SendPolicy
from everlease.chain.typed_data import bid_digest, job_id, node_auth_digest
from everlease.db import Database, Tx, auctions, awards, checkpoints, commands, jobs, nodes
from everlease.db.awards import Beat
from everlease.db.journal import PostgresJournal
from everlease.db.models.jobs import AuctionRow, AwardRow, CheckpointRow, JobRow
from everlease.db.models.mirror import CursorRow, LeaseRow
from everlease.db.models.nodes import CommandRow, NodeRow
from everlease.db.models.outbox import TxRow
from everlease.db.outbox import emit
from everlease.domain import jobspec
from everlease.domain.earning import PROVEN_S
from everlease.domain.jobspec import CheckpointMode, CheckpointPolicy, JobSpec, Resources
from everlease.domain.terms import Bid, NodeAuth
from indexer.follower import Follower, Step
from recovery import apply
from recovery.apply import Desk
from recovery.planner import Policy
from recovery.receipts import Watcher
from tests.support.deployed import DOLLAR, Market, key

SPEC = JobSpec(
    name="train",
    image="everlease/trainer:local",
    image_digest="sha256:" + "ab" * 32,
    command=("python", "train.py"),
    resources=Resources(gpus=0, cpu_millis=1000, memory_bytes=2**30, disk_bytes=2**30),
    checkpoint=CheckpointPolicy(CheckpointMode.AUTO, max_lost_work_s=300, min_interval_s=10),
    max_recoveries=10,
)


@dataclass
class Stage:
    """A market on Anvil, a desk on PostgreSQL, a sender, and nodes that do what a test tells them."""

    market: Market
    database: Database
    desk: Desk
    sender: Sender
    follower: Follower
    slots: "itertools.count[int]" = field(default_factory=lambda: itertools.count(1))

    def launch(self, nonce: int = 1, **changes: Any) -> str:
        """A funded job, mirrored, not yet looked at; returns its id."""
        order = self.market.order(nonce, **changes)
        order = type(order)(**{**asdict(order), "job_spec": jobspec.spec_hash(SPEC)})
        self.market.fund(order)
        found = job_id(self.market.deployment.escrow_domain, order)
        with self.database.transaction() as tx:
            tx.add(
                JobRow(
                    id=found,
                    name=SPEC.name,
                    tenant=order.tenant,
                    watcher=order.watcher,
                    order=asdict(order),
                    order_signature="0x",
                    spec=asdict(SPEC),
                    image_digest=SPEC.image_digest,
                    state="PENDING",
                    wish_detail={},
                )
            )
        self.mirror()
        return found

    def node(self, index: int, stake: int = 100 * DOLLAR) -> str:
        """A connected node of its own provider (development account ``index``), staked and authorised."""
        owner = key(index)
        hot = Key.of(bytes([index]) * 32)
        self.market.send(key(0), self.market.asset.mint(owner.address, stake))
        self.market.send(owner, self.market.asset.approve(self.market.deployment.staking, 2**128))
        self.market.send(owner, self.market.staking.stake(stake))
        auth = NodeAuth(owner.address, hot.address, self.market.now() + 600, 1)
        digest = node_auth_digest(self.market.deployment.staking_domain, auth)
        self.market.send(owner, self.market.staking.authorise_node(auth, hot.sign(digest)))
        with self.database.transaction() as tx:
            nodes.admit(tx, hot.address, owner.address, f"session-{index}", "", "1", {})
        self.mirror()
        return hot.address

    def prove(self, index: int) -> None:
        """The provider of account ``index`` has served another tenant for long enough, up to a commit."""
        with self.database.transaction() as tx:
            slot = next(self.slots)
            tenant, job = f"0x{'a' * 39}{index}", f"0x{slot:064x}"
            shared: dict[str, Any] = {"order": {}, "order_signature": "0x", "wish_detail": {}, "image_digest": ""}
            tx.add(JobRow(id=job, name="before", tenant=tenant, watcher=tenant, spec={}, state="SUCCEEDED", **shared))
            tx.flush()
            now = datetime.now(UTC)
            tx.add(
                AwardRow(
                    job_id=job,
                    fence=1,
                    epoch=1,
                    node=Key.of(bytes([index]) * 32).address,
                    provider=key(index).address,
                    lease_id=job,
                    rate_per_hour=1,
                    mode="process",
                    bid={},
                    bid_signature="0x",
                    generation=1,
                    awarded_at=now,
                    started_at=now,
                    ended_at=now,
                    outcome="succeeded",
                    earned_s=PROVEN_S,
                    saved_s=PROVEN_S,
                )
            )

    def advance(self, job: str) -> list[Any]:
        """One task: advance, pump, mirror."""
        moves = apply.advance(self.desk, job)
        self.sender.pump(self.desk.watcher.address)
        self.mirror()
        return moves

    def until(self, job: str, goal: Callable[["Stage"], bool], timeout_s: float = 20.0) -> None:
        """Advance again and again, as events and timers would, until ``goal`` holds."""
        end = time.monotonic() + timeout_s
        while not goal(self):
            if time.monotonic() > end:
                raise AssertionError(f"not within {timeout_s} s: {self.describe(job)}")
            self.advance(job)
            time.sleep(0.05)

    def reach(self, job: str, state: str, timeout_s: float = 20.0) -> None:
        """Advance until the job is in ``state``."""
        self.until(job, lambda stage: stage.job(job).state == state, timeout_s)

    def bid(self, job: str, index: int, rate: int = 100_000) -> None:
        """The node of account ``index`` bids in the open auction."""
        hot, owner = Key.of(bytes([index]) * 32), key(index)
        with self.database.transaction() as tx:
            auction = tx.scalar(select(AuctionRow).where(AuctionRow.job_id == job, AuctionRow.closed_at.is_(None)))
            assert auction is not None, self.describe(job)
            deadline = int(auction.bids_until.timestamp())
            bid = Bid(owner.address, hot.address, job, auction.epoch, rate, DOLLAR, deadline, next(self.slots))
            auctions.note_asked(tx, auction.id, [hot.address], {})
            signature = hot.sign(bid_digest(self.market.deployment.escrow_domain, bid))
            auctions.add_bid(tx, auction, hot.address, owner.address, asdict(bid), signature, 0)

    def answer(self, job: str, kind: str, *, ok: bool = True, error: str = "", **result: Any) -> None:
        """The node answers the newest open command of this kind."""
        with self.database.transaction() as tx:
            row = tx.scalar(
                select(CommandRow)
                .where(CommandRow.job_id == job, CommandRow.kind == kind, CommandRow.finished_at.is_(None))
                .order_by(CommandRow.id.desc())
            )
            assert row is not None, f"no open {kind}: {self.describe(job)}"
            commands.mark_sent(tx, row.id)
            commands.finish(tx, row.node, job, row.step, ok=ok, error=error, retryable=False, result=result)

    def run_on(self, job: str, index: int, timeout_s: float = 20.0) -> None:
        """Take a job that is at auction to RUNNING on the node of account ``index``."""
        self.until(job, lambda stage: stage.has_open_auction(job), timeout_s)
        self.bid(job, index)
        self.until(job, lambda stage: stage.has_command(job, "prepare"), timeout_s)
        self.answer(job, "prepare", image_s=0.1)
        self.until(job, lambda stage: stage.has_command(job, "start"), timeout_s)
        self.answer(job, "start", restore_s=0.2)
        self.reach(job, "RUNNING", timeout_s)

    def beat(self, job: str, times: int = 1, pause_s: float = 0.0, *, serving: bool = True) -> None:
        """Heartbeats of the node that holds the job."""
        for _ in range(times):
            with self.database.transaction() as tx:
                award = self._award(tx, job)
                row = tx.get_one(NodeRow, award.node)
                assert nodes.seen(tx, award.node, row.session or "")
                assert not awards.beat(tx, award.node, [Beat(job, award.fence, serving, None)])
            time.sleep(pause_s)

    def checkpoint(self, job: str, *, final: bool = False) -> str:
        """The node that holds the job commits a checkpoint; returns its manifest's CID."""
        with self.database.transaction() as tx:
            manifest = self._commit(tx, job, final)
            emit(tx, "checkpoint.committed", {"job_id": job})
        return manifest

    def junk(self, job: str, count: int) -> None:
        """The node that holds the job commits so many checkpoints; each as one, in one transaction to save time."""
        with self.database.transaction() as tx:
            for _ in range(count):
                self._commit(tx, job, False)

    def _commit(self, tx: Tx, job: str, final: bool) -> str:
        award, row = self._award(tx, job), jobs.get(tx, job)
        tx.refresh(row)
        head = checkpoints.by_manifest(tx, row.head_manifest) if row.head_manifest else None
        number = f"{job[2:10]}{row.last_seq + 1}"
        manifest = "b" + number.translate(str.maketrans("0189", "abcd")) + "a" * 40
        jobs.advance_head(
            tx,
            CheckpointRow(
                job_id=job,
                depth=head.depth + 1 if head is not None else 1,
                fence=award.fence,
                epoch=award.epoch,
                node=award.node,
                mode="process",
                manifest=manifest,
                predecessor=row.head_manifest,
                block_cids=[],
                generation=award.generation,
                generations=[award.generation],
                requirements={},
                logical_bytes=1,
                new_bytes=1,
                pause_s=0.1,
                total_s=0.2,
                final=final,
                damaged="",
                taken_at=datetime.now(UTC),
            ),
        )
        tx.flush()
        return manifest

    def kill(self, node: str) -> None:
        """The node's socket closes."""
        with self.database.transaction() as tx:
            row = tx.get_one(NodeRow, node)
            nodes.gone(tx, node, row.session or "")

    def lose(self, job: str) -> None:
        """The monitor's verdict on the node that holds the job."""
        with self.database.transaction() as tx:
            award = self._award(tx, job)
            fence, node = award.fence, award.node
        self.kill(node)
        assert apply.lose(self.desk, job, fence, {"cause": "disconnected", "last_seen": None})

    def job(self, job: str) -> JobRow:
        """The job's row."""
        with self.database.transaction() as tx:
            return jobs.get(tx, job)

    def award(self, job: str) -> AwardRow:
        """The newest award."""
        with self.database.transaction() as tx:
            return self._award(tx, job)

    def lease(self, lease_id: str) -> LeaseRow | None:
        """A lease as mirrored."""
        with self.database.transaction() as tx:
            return tx.get(LeaseRow, lease_id)

    def lease_state(self, lease_id: str) -> str:
        """A lease's mirrored state, NONE where the mirror has none."""
        row = self.lease(lease_id)
        return row.state if row is not None else "NONE"

    def has_open_auction(self, job: str) -> bool:
        """Whether bids are taken."""
        with self.database.transaction() as tx:
            return (
                tx.scalar(select(AuctionRow).where(AuctionRow.job_id == job, AuctionRow.closed_at.is_(None)))
                is not None
            )

    def has_command(self, job: str, kind: str) -> bool:
        """Whether a command of this kind waits for its answer."""
        with self.database.transaction() as tx:
            found = select(CommandRow).where(
                CommandRow.job_id == job, CommandRow.kind == kind, CommandRow.finished_at.is_(None)
            )
            return tx.scalars(found).first() is not None

    def commands(self, tx: Tx, job: str) -> list[CommandRow]:
        """All commands of a job, oldest first."""
        return list(tx.scalars(select(CommandRow).where(CommandRow.job_id == job).order_by(CommandRow.id)))

    def mirror(self) -> None:
        """Let the indexer catch up; a block counts as final as soon as two are above it."""
        assert self.follower.catch_up() is Step.IDLE
        with self.database.transaction() as tx:
            cursor = tx.get_one(CursorRow, 1)
            cursor.final_number = max(cursor.block_number - 2, cursor.final_number)

    def describe(self, job: str) -> str:
        """State, awards and commands, for a failed assertion."""
        with self.database.transaction() as tx:
            row = jobs.get(tx, job)
            held = tx.scalars(select(AwardRow).where(AwardRow.job_id == job).order_by(AwardRow.fence)).all()
            told = self.commands(tx, job)
            sent = tx.scalars(select(TxRow).where(TxRow.job_id == job).order_by(TxRow.id)).all()
            return (
                f"{row.state} ({row.reason}) awards={[(a.fence, a.outcome or 'current') for a in held]} "
                f"commands={[(c.step, c.ok) for c in told]} txs={[(t.action_key[:12], t.state, t.error) for t in sent]}"
            )

    def _award(self, tx: Tx, job: str) -> AwardRow:
        row = tx.scalar(select(AwardRow).where(AwardRow.job_id == job).order_by(AwardRow.fence.desc()))
        assert row is not None
        return row


def make_stage(market: Market, database: Database, **policy: Any) -> Stage:
    """A desk whose auctions are short."""
    terms = market.deployment.terms
    short = {"auction_window_s": 0.2, "recovery_window_s": 0.2, "migration_window_s": 0.2, "capacity_wait_s": 1.0}
    desk = Desk(
        database=database,
        watcher=Watcher(market.watcher, market.deployment.escrow_domain),
        calls=EscrowCalls(market.deployment),
        policy=Policy(min_runtime_s=terms.min_runtime, bond=terms.bond, **{**short, **policy}),
        clock=time.time,
    )
    keys = {market.watcher.address: market.watcher}
    sender = Sender(market.chain, PostgresJournal(database), keys, policy=SendPolicy())
    return Stage(market, database, desk, sender, Follower(market.chain, market.deployment, database))
