"""A world in memory for the planner: applies its moves, and lets nodes, chain and tenant do what they may do."""

from dataclasses import dataclass, field, replace
from typing import Any

from everlease.domain import job as machine
from everlease.domain.auction import Offer
from everlease.domain.earning import SERVED_S, Service, payable
from everlease.domain.job import JobEvent, JobState
from everlease.domain.jobspec import CheckpointMode, CheckpointPolicy, JobSpec, Resources
from everlease.domain.lease import LeaseState
from everlease.domain.reserve import Posted, fix
from everlease.domain.snapshot import (
    RECOVERED,
    Auction,
    Award,
    ChainTx,
    Checkpoint,
    Command,
    Escrow,
    Goodbye,
    Job,
    Lease,
    SignedOffer,
    Snapshot,
    Unended,
)
from everlease.domain.terms import Bid, Order, Receipt
from recovery import moves as m
from recovery.planner import Policy, plan

JOB = "0x" + "0a" * 32
NODES = tuple("0x" + f"{n:02x}" * 20 for n in range(1, 6))
SILENT = "0x" + "ee" * 20
"""A node that every auction asks, and that never answers."""
RATE = 3_600_000
POLICY = Policy(min_runtime_s=60, bond=1000, posted=Posted(cpu=RATE, gib=0, gpu=0))
"""Its reserves start at the order's maximum."""
START = 1_000_000.0
LOADED = 64
"""How many commands of a job recovery gets to see, the newest."""

ORDER = Order(
    tenant="0x" + "aa" * 20,
    watcher="0x" + "bb" * 20,
    job_spec="0x" + "00" * 32,
    max_rate_per_hour=RATE,
    deposit=10**9,
    min_collateral=1,
    max_silence=5,
    max_epochs=1000,
    epoch_fee=10,
    deadline=int(START) + 10**7,
    nonce=1,
)


def spec(mode: CheckpointMode = CheckpointMode.AUTO, fall_back: bool = False, max_recoveries: int = 100) -> JobSpec:
    """A small job's spec."""
    return JobSpec(
        name="j",
        image="i",
        image_digest="sha256:" + "00" * 32,
        command=("run",),
        resources=Resources(0, 1000, 2**20, 2**20),
        checkpoint=CheckpointPolicy(mode, 300, 10, fall_back),
        max_recoveries=max_recoveries,
    )


def escrow(**changes: Any) -> Escrow:
    """A rich escrow."""
    values: dict[str, Any] = {
        "epochs": 0,
        "max_epochs": 1000,
        "max_rate_per_hour": RATE,
        "max_silence": 5,
        "epoch_fee": 10,
        "deadline": ORDER.deadline,
        "balance": 10**9,
        "reserved": 0,
    }
    return Escrow(**{**values, **changes})


def new_job(state: JobState = JobState.PENDING, **changes: Any) -> Job:
    """A job without history."""
    values: dict[str, Any] = {
        "id": JOB,
        "state": state,
        "order": ORDER,
        "spec": spec(),
        "spec_json": {},
        "image_manifest": None,
        "image_bytes": 0,
        "image_digest": "",
        "created_at": START,
    }
    return Job(**{**values, **changes})


@dataclass
class World:
    """The facts, and everything that was ever moved."""

    snapshot: Snapshot = field(default_factory=lambda: Snapshot(job=new_job(), escrow=escrow()))
    now: float = START
    policy: Policy = POLICY
    moved: list[tuple[float, int, m.Move]] = field(default_factory=list)
    serial: int = 0
    steps: set[str] = field(default_factory=set)
    providers: dict[str, str] = field(default_factory=dict)
    """Of nodes that are not their own."""
    committed: list[Checkpoint] = field(default_factory=list)
    trusted: frozenset[str] = frozenset()
    """Providers that are proven."""

    # -- recovery --

    def settle(self) -> list[m.Move]:
        """Plan and apply until nothing is left to do; raises where that never comes."""
        done: list[m.Move] = []
        for _ in range(40):
            self._set(
                other=self._other(),
                unended=self._unended(),
                auctions=tuple(self._aged(auction) for auction in self.snapshot.auctions),
            )
            self._set(
                proven=self.trusted,
                young=not self.trusted,
                bonds_given=self._bonds(),
                unserved=self._unserved(),
                recovered=self._recovered(),
            )
            found = plan(self.snapshot, self.now, self.policy)
            if not found:
                return done
            for move in found:
                self.moved.append((self.now, self.snapshot.job.fence, move))
                self._apply(move)
            done += found
        raise AssertionError(f"the planner never rests: {done[-4:]}")

    def _aged(self, auction: Auction) -> Auction:
        return replace(auction, age_s=self.now - auction.opened_at) if auction.closed_at is None else auction

    def _other(self) -> Checkpoint | None:
        head, makers = self.snapshot.head, {award.fence: award.provider for award in self.snapshot.awards}
        if head is None:
            return None
        before = [point for point in self.snapshot.checkpoints if point.seq < head.seq]
        return next((p for p in reversed(before) if makers.get(p.fence) != makers.get(head.fence)), None)

    def _unended(self) -> Unended | None:
        head, ends = self.snapshot.head, {award.fence: award.outcome for award in self.snapshot.awards}
        if head is None or not head.final or ends[head.fence] == "finished":
            return None
        return Unended(next((p for p in reversed(self.snapshot.checkpoints) if not p.final), None))

    def _bonds(self) -> int:
        since = {award.lease_id for award in self._since_resumed()}
        cleared = [le for le in self.snapshot.leases if le.state is LeaseState.CLEARED and not le.earned]
        return sum(lease.lease_id in since for lease in cleared)

    def _since_resumed(self) -> list[Award]:
        return [award for award in self.snapshot.awards if award.fence > self.job.resumed_fence]

    def _unserved(self) -> int:
        served = {award.lease_id: award.earned_s >= SERVED_S for award in self._since_resumed()}
        return sum(served.get(lease.lease_id) is False for lease in self.snapshot.leases)

    def _recovered(self) -> int:
        left = [a for a in self._since_resumed() if a.started_at is not None and a.outcome in RECOVERED]
        providers = {award.provider for award in left}
        if len(providers) > self.job.spec.max_recoveries and not self.trusted:
            return len(providers)
        return len({provider if provider in self.trusted else "fresh" for provider in providers})

    @property
    def job(self) -> Job:
        return self.snapshot.job

    def _set(self, **changes: Any) -> None:
        self.snapshot = replace(self.snapshot, **changes)

    def set_job(self, **changes: Any) -> None:
        """Change the job's row."""
        self._set(job=replace(self.job, **changes))

    def set_award(self, fence: int, **changes: Any) -> None:
        """Change an award's row."""
        self._set(awards=tuple(replace(a, **changes) if a.fence == fence else a for a in self.snapshot.awards))

    def _apply(self, move: m.Move) -> None:
        match move:
            case m.ApplyEvent():
                self.set_job(state=machine.next_state(self.job.state, move.event), reason=move.reason)
            case m.BeginFrom():
                self.set_job(resumed_fence=self.job.fence, recoveries=0)
                if move.seq == 0:
                    self.set_job(head_seq=0, head_manifest=None)
                for point in self.snapshot.checkpoints:
                    if point.seq == move.seq:
                        self.set_job(head_seq=point.seq, head_manifest=point.manifest)
            case m.ClearWish():
                self.set_job(wish=None)
            case m.SetDue():
                self.set_job(due_at=move.at)
            case m.OpenAuction():
                self._open_auction(move)
            case m.HoldBids():
                *before, newest = self.snapshot.auctions
                self._set(auctions=(*before, replace(newest, held_round=move.number)))
            case m.CloseAuction():
                self._close_auction(move)
            case m.GiveAward():
                self._give(move)
            case m.NoteAward():
                self.set_award(move.fence, **move.instants, **move.facts)
            case m.CountRestart():
                award = next(a for a in self.snapshot.awards if a.fence == move.fence)
                name = "host_faults" if move.host_fault else "restarts"
                counted: dict[str, Any] = {name: getattr(award, name) + 1}
                if move.host_fault:
                    lost_s = award.forfeited_s + award.earned_s - award.saved_s
                    counted |= {"forfeited_s": lost_s, "saved_s": award.earned_s}
                self.set_award(move.fence, exit_code=None, exited_at=None, host_fault="", **counted)
            case m.SignFinal():
                award = next(a for a in self.snapshot.awards if a.fence == move.fence)
                service = Service(award.earned_s, award.saved_s, award.forfeited_s)
                policy = self.job.spec.checkpoint
                as_served, bound = policy.pays_as_served, policy.max_lost_work_s
                earned = payable(service, as_served=as_served, in_full=move.in_full, max_lost_work=bound)
                receipt = Receipt(award.lease_id, 1, int(self.now), earned, True)
                self._set(receipts={**self.snapshot.receipts, award.lease_id: receipt})
            case m.EndAward():
                self._end(move.fence, move.outcome, move.recovery)
            case m.IssueCommand():
                self._issue(move)
            case m.EnqueueOpen():
                self.set_award(move.fence, settle=move.settle_how if move.settle_lease else "")
                self._enqueue(move.action_key, "open")
            case m.EnqueueSettle():
                self._enqueue(move.action_key, move.how)
            case m.RewindHead():
                self._set(checkpoints=tuple(p for p in self.snapshot.checkpoints if p.seq <= move.seq))
                self.set_job(head_seq=move.seq, head_manifest=move.manifest)
            case m.Record() | m.SetExitCode():
                pass

    def _open_auction(self, move: m.OpenAuction) -> None:
        self.serial += 1
        auction = Auction(
            id=self.serial,
            epoch=move.epoch,
            plan=move.plan,
            mode=move.mode,
            opened_at=self.now,
            closes_at=self.now + move.window_s,
            bids_until=move.bids_until,
            excluded=move.excluded,
            asked=frozenset({SILENT}),
            reserve=fix(
                (),
                self.job.spec.resources,
                self.policy.posted,
                maximum=move.maximum,
                window_s=move.window_s,
                rise_s=move.rise_s,
                last=move.last,
            ),
        )
        self._set(auctions=(*self.snapshot.auctions, auction), offers=())

    def _close_auction(self, move: m.CloseAuction) -> None:
        self._set(
            auctions=tuple(
                replace(a, closed_at=a.closed_at or self.now, outcome=move.outcome, winner=dict(move.winner))
                if a.id == move.auction_id
                else a
                for a in self.snapshot.auctions
            ),
            offers=(),
        )

    def _give(self, move: m.GiveAward) -> None:
        self.set_job(fence=self.job.fence + 1)
        award = Award(
            fence=self.job.fence,
            epoch=move.epoch,
            node=move.node,
            provider=move.provider,
            lease_id=f"lease-{self.job.fence}",
            rate_per_hour=move.rate_per_hour,
            mode=move.mode,
            awarded_at=self.now,
            auction_id=move.auction_id,
            bid=move.bid,
            restore_seq=self.job.head_seq,
            restore_manifest=self.job.head_manifest,
            settle=move.settle,
        )
        self._set(awards=(*self.snapshot.awards, award))

    def _end(self, fence: int, outcome: str, recovery: bool) -> None:
        award = next(a for a in self.snapshot.awards if a.fence == fence)
        self.set_award(fence, ended_at=self.now, outcome=outcome)
        if recovery and award.started_at is not None:
            self.set_job(recoveries=self.job.recoveries + 1)

    def _issue(self, move: m.IssueCommand) -> None:
        if move.step not in self.steps:
            self.steps.add(move.step)
            command = Command(move.fence, move.node, move.step, move.kind, self.now, self.now + move.timeout_s)
            self._set(commands=(*self.snapshot.commands, command)[-LOADED:])

    def _enqueue(self, action_key: str, call: str) -> None:
        assert all(tx.action_key != action_key for tx in self.snapshot.txs)
        self._set(txs=(*self.snapshot.txs, ChainTx(action_key, call, "sent", created_at=self.now)))

    # -- everybody else --

    def offer(self, *nodes: str, rate: int = RATE // 2) -> None:
        """Nodes bid in the open auction."""
        auction = self.snapshot.auction
        if auction is None or auction.closed_at is not None:
            return
        fresh = [node for node in nodes if all(o.offer.bid.node != node for o in self.snapshot.offers)]
        offers = [
            SignedOffer(
                Offer(Bid(owner, node, JOB, auction.epoch, rate, 1, auction.bids_until, self.serial), 86400, 0, 1, 10),
                "0x01",
            )
            for node, owner in ((node, self.providers.get(node, node)) for node in fresh)
        ]
        self._set(offers=(*self.snapshot.offers, *offers))

    def answer(
        self, step_prefix: str, *, ok: bool = True, error: str = "", retryable: bool = False, **result: Any
    ) -> bool:
        """The oldest open command of this name is answered."""
        for command in self.snapshot.commands:
            if command.step.startswith(step_prefix) and command.ok is None:
                said = {"ok": ok, "error": error, "retryable": retryable, "result": result}
                done = replace(command, sent_at=self.now, finished_at=self.now, **said)
                self._set(commands=tuple(done if c is command else c for c in self.snapshot.commands))
                return True
        return False

    def expire(self) -> None:
        """Commands past their deadline are finished as failed."""
        self._set(
            commands=tuple(
                replace(c, ok=False, finished_at=self.now, error="no answer", retryable=True)
                if c.ok is None and c.deadline <= self.now
                else c
                for c in self.snapshot.commands
            )
        )

    def mine(self, *, ok: bool = True, error: str = "reverted") -> bool:
        """The oldest transaction in flight is mined and mirrored, or reverts."""
        for tx in self.snapshot.txs:
            if tx.state != "sent":
                continue
            lease_id = self._target(tx)
            works = ok and self._legal(tx, lease_id)
            done = replace(tx, state="mined" if works else "reverted", error="" if works else error)
            self._set(txs=tuple(done if t is tx else t for t in self.snapshot.txs))
            if works:
                self._effect(tx, lease_id)
            return True
        return False

    def turn_round(self) -> bool:
        """A reorg mines a reverted transaction anew, and this time it succeeds."""
        for tx in self.snapshot.txs:
            if tx.state == "reverted" and self._legal(tx, self._target(tx)):
                done = replace(tx, state="mined", error="")
                self._set(txs=tuple(done if t is tx else t for t in self.snapshot.txs))
                self._effect(tx, self._target(tx))
                return True
        return False

    def _target(self, tx: ChainTx) -> str:
        parts = tx.action_key.split("/")
        return parts[1] if parts[0] == "settle" else f"lease-{parts[2]}"

    def _active(self) -> Lease | None:
        return next((lease for lease in self.snapshot.leases if lease.state is LeaseState.ACTIVE), None)

    def _legal(self, tx: ChainTx, lease_id: str) -> bool:
        assert self.snapshot.escrow is not None
        active = self._active()
        if tx.call != "open":
            return active is not None and active.lease_id == lease_id
        award = next(a for a in self.snapshot.awards if a.lease_id == lease_id)
        settles = bool(award.settle) and active is not None
        return award.epoch == self.snapshot.escrow.epochs + 1 and (active is None or settles)

    def _effect(self, tx: ChainTx, lease_id: str) -> None:
        active = self._active()
        if tx.call != "open":
            state = LeaseState.SUSPENDED if tx.call == "suspend" else LeaseState.CLOSED
            self.set_lease(lease_id, state=state)
            return
        award = next(a for a in self.snapshot.awards if a.lease_id == lease_id)
        if active is not None:
            self.set_lease(
                active.lease_id, state=LeaseState.SUSPENDED if award.settle == "suspend" else LeaseState.CLOSED
            )
        assert self.snapshot.escrow is not None
        lease = Lease(
            lease_id=lease_id,
            epoch=award.epoch,
            node=award.node,
            state=LeaseState.ACTIVE,
            rate=award.rate_per_hour,
            reserve=60_000,
            bond=1000,
            paid=0,
            earned=0,
            seen_at=int(self.now),
            started_at=int(self.now),
            ends_at=ORDER.deadline,
            exit_at=ORDER.deadline + 3600,
        )
        self._set(leases=(*self.snapshot.leases, lease), escrow=replace(self.snapshot.escrow, epochs=award.epoch))

    def drain(self, node: str) -> None:
        """A node drains; it may be that of the current award."""
        self._set(draining_nodes=self.snapshot.draining_nodes | {node})

    def set_lease(self, lease_id: str, **changes: Any) -> None:
        """The chain changes a lease."""
        self._set(
            leases=tuple(
                replace(lease, **changes) if lease.lease_id == lease_id else lease for lease in self.snapshot.leases
            )
        )

    def reorg(self) -> None:
        """The newest lease vanishes; its transaction waits to be mined again."""
        active = self._active()
        if active is None or self.snapshot.escrow is None:
            return
        self._set(
            leases=tuple(lease for lease in self.snapshot.leases if lease is not active),
            escrow=replace(self.snapshot.escrow, epochs=active.epoch - 1),
            txs=tuple(
                replace(tx, state="sent") if tx.call == "open" and self._target(tx) == active.lease_id else tx
                for tx in self.snapshot.txs
            ),
        )

    def beat(self, *, serving: bool = True, storing: bool = False) -> None:
        """A heartbeat of the node that runs the job."""
        award = self.snapshot.award
        if award is not None and award.started_at is not None:
            earned = award.earned_s + max(self.now - (award.last_beat_at or award.started_at), 0)
            idle = None if serving else award.idle_since or self.now
            earned = earned if serving else award.earned_s
            self.set_award(award.fence, last_beat_at=self.now, earned_s=earned, idle_since=idle, storing=storing)

    def commit(self, *, final: bool = False, mode: str = "process") -> bool:
        """The node that runs the job commits a checkpoint."""
        award = self.snapshot.award
        if award is None or award.started_at is None:
            return False
        seq = self.job.head_seq + 1
        self.serial += 1
        point = Checkpoint(seq, award.fence, f"m{self.serial}", self.job.head_manifest, mode, final)
        kept = tuple(p for p in self.snapshot.checkpoints if p.seq != seq)
        self.committed.append(point)
        self._set(checkpoints=(*kept, point)[-4:])
        self.set_job(head_seq=seq, head_manifest=point.manifest)
        self.set_award(award.fence, saved_s=award.earned_s)
        return True

    def exit(self, code: int, host_fault: str = "") -> None:
        """The container ends, by its program's doing or its host's."""
        award = self.snapshot.award
        if award is not None and award.started_at is not None:
            self.set_award(award.fence, exit_code=code, exited_at=self.now, host_fault=host_fault)

    def goodbye(self, *, still: bool = True, why: str = "", recent: int = 1) -> bool:
        """The node that holds the job stops in order, at the job's head."""
        award = self.snapshot.award
        if award is None:
            return False
        self.set_award(
            award.fence, goodbye=Goodbye(self.now, self.job.head_manifest, still, why, "the host stops", recent)
        )
        return True

    def lose(self) -> bool:
        """The monitor's verdict, as recovery.apply.lose does it."""
        award = self.snapshot.award
        if award is None or award.goodbye is not None or not machine.allows(self.job.state, JobEvent.LOST):
            return False
        self._end(award.fence, "lost", True)
        self.set_award(award.fence, last_seen_at=award.last_beat_at)
        self._apply(m.ApplyEvent(JobEvent.LOST))
        return True

    def run(self, node: str = NODES[0]) -> None:
        """From wherever the job waits for bids to RUNNING on ``node``."""
        self.settle()
        self.offer(node)
        self.now += 2
        self.settle()
        for _ in range(40):
            self.answer("prepare", ok=True)
            self.mine()
            self.answer("start", ok=True)
            self.settle()
            if self.job.state is JobState.RUNNING:
                return
            self.now += 1
        raise AssertionError(f"not running: {self.job.state} {self.job.reason}")
