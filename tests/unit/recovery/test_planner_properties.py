"""Whatever nodes, chain, tenant and time do: the planner rests, fences hold, no award is given twice."""

from collections import Counter
from dataclasses import replace

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from everlease.domain.job import ENDED, PLACED
from everlease.domain.lease import LeaseState
from everlease.domain.liveness import fenced_at
from everlease.domain.reserve import Posted
from everlease.domain.snapshot import Snapshot
from everlease.domain.terms import UNSERVED_SHARE
from recovery import moves as m
from recovery.planner import plan
from tests.support.model import NODES, ORDER, POLICY, RATE, World, escrow, new_job

STEPS = ("prepare", "preload", "start", "hold", "thaw", "stop", "freeze", "restart", "checkpoint")


class AnyWorld(RuleBasedStateMachine):
    """Every rule is followed by as many plans as it takes."""

    @initialize(
        starts_at=st.sampled_from([RATE, RATE // 4]),
        leases=st.sampled_from([1, 2, 1000]),
        unserved=st.sampled_from([1, 2, 1000]),
        runs=st.booleans(),
    )
    def begin(self, starts_at: int, leases: int, unserved: int, runs: bool) -> None:
        policy = replace(POLICY, posted=Posted(cpu=starts_at, gib=0, gpu=0))
        order = replace(ORDER, max_epochs=leases, deposit=unserved * ORDER.epoch_fee * UNSERVED_SHARE)
        snapshot = Snapshot(job=new_job(order=order), escrow=escrow(max_epochs=leases))
        self.world = World(snapshot, providers=dict.fromkeys(NODES[:2], "one provider"), policy=policy)
        if runs:
            self.world.run()
        self.world.settle()

    @rule(node=st.sampled_from(NODES))
    def bid(self, node: str) -> None:
        self.world.offer(node)
        self.world.settle()

    @rule(seconds=st.sampled_from([0.1, 0.5, 1, 3, 6, 40, 700, 2000]))
    def time_passes(self, seconds: float) -> None:
        self.world.now += seconds
        self.world.expire()
        self.world.settle()

    @rule(
        step=st.sampled_from(
            ["prepare", "preload", "start", "hold", "thaw", "stop", "freeze", "restart", "checkpoint"]
        ),
        ok=st.sampled_from([True, True, True, False]),
        retryable=st.booleans(),
    )
    def node_answers(self, step: str, ok: bool, retryable: bool) -> None:
        if step == "hold" and ok:
            self.world.commit()
        self.world.answer(step, ok=ok, error="" if ok else "it failed", retryable=retryable and not ok)
        self.world.settle()

    @rule(ok=st.sampled_from([True, True, True, False]))
    def chain_answers(self, ok: bool) -> None:
        self.world.mine(ok=ok)
        self.world.settle()

    @rule()
    def reorg(self) -> None:
        self.world.reorg()
        self.world.settle()

    @rule()
    def reorg_turns_a_revert_round(self) -> None:
        self.world.turn_round()
        self.world.settle()

    @rule(serving=st.booleans(), storing=st.booleans())
    def beat(self, serving: bool, storing: bool) -> None:
        self.world.beat(serving=serving, storing=storing)
        self.world.settle()

    @rule()
    def checkpoint(self) -> None:
        self.world.commit()
        self.world.settle()

    @rule(code=st.sampled_from([0, 1, 137]), stored=st.booleans())
    def container_exits(self, code: int, stored: bool) -> None:
        if code == 0 and stored:
            self.world.commit(final=True, mode="files")
        self.world.exit(code)
        self.world.settle()

    @rule(code=st.sampled_from([0, 137, 143]))
    def docker_ends_the_container(self, code: int) -> None:
        self.world.exit(code, "the host's Docker daemon was started anew")
        self.world.settle()

    @rule(still=st.booleans(), recent=st.sampled_from([1, 1, 8]))
    def node_says_goodbye(self, still: bool, recent: int) -> None:
        self.world.goodbye(still=still, recent=recent)
        self.world.settle()

    @rule()
    def a_dump_fails(self) -> None:
        if self.world.snapshot.award is not None:
            self.world.set_award(self.world.job.fence, undumpable="it uses io_uring")
        self.world.settle()

    @rule()
    def outputs_are_not_stored(self) -> None:
        if self.world.snapshot.award is not None:
            self.world.set_award(self.world.job.fence, final_commit_failed="the store said no")
        self.world.settle()

    @rule()
    def node_drains(self) -> None:
        if self.world.snapshot.award is not None:
            self.world.drain(self.world.snapshot.award.node)
        self.world.settle()

    @rule(ends=st.booleans())
    def provider_gives_notice(self, ends: bool) -> None:
        award = self.world.snapshot.award
        if award is not None:
            self.world.set_lease(award.lease_id, noticed=True)
            self.world.settle()
        if award is not None and ends:
            self.world.set_lease(award.lease_id, state=LeaseState.CLOSED)
        self.world.settle()

    @rule()
    def tenant_cancels_on_chain(self) -> None:
        assert self.world.snapshot.escrow is not None
        cancelled = replace(self.world.snapshot.escrow, cancelled=True)
        self.world.snapshot = replace(self.world.snapshot, escrow=cancelled)
        self.world.settle()

    @rule()
    def node_is_lost(self) -> None:
        self.world.lose()
        self.world.settle()

    @precondition(lambda self: self.world.job.wish is None)
    @rule(wish=st.sampled_from(["migrate", "hibernate", "resume", "checkpoint", "cancel"]))
    def tenant_wishes(self, wish: str) -> None:
        self.world.set_job(wish=wish)
        self.world.settle()

    @invariant()
    def it_rests(self) -> None:
        assert plan(self.world.snapshot, self.world.now, self.world.policy) == []

    @invariant()
    def one_award_at_most_and_it_has_the_current_fence(self) -> None:
        current = [award for award in self.world.snapshot.awards if award.current]
        assert len(current) <= 1
        assert all(award.fence == self.world.job.fence for award in current)
        assert bool(current) == (self.world.job.state in PLACED) or self.world.job.state.value in {
            "CANCELLING",
            "MIGRATING",
        }

    @invariant()
    def bids_are_taken_only_where_somebody_waits_for_them(self) -> None:
        auctions = self.world.snapshot.auctions
        opened = [auction for auction in auctions if auction.closed_at is None]
        plans = {"AUCTIONING": {"first", "resume", "recovery"}, "MIGRATING": {"migration"}}
        assert opened in ([], [*auctions[-1:]])
        assert {auction.plan for auction in opened} <= plans.get(self.world.job.state.value, set())

    @invariant()
    def fences_are_never_used_twice(self) -> None:
        fences = [award.fence for award in self.world.snapshot.awards]
        assert fences == sorted(set(fences))

    @invariant()
    def commands_carry_the_current_fence(self) -> None:
        for _, fence, move in self.world.moved:
            if isinstance(move, m.IssueCommand) and move.kind not in {"stop", "freeze"}:
                assert move.fence == fence

    @invariant()
    def every_step_is_issued_once(self) -> None:
        steps = Counter(move.step for _, _, move in self.world.moved if isinstance(move, m.IssueCommand))
        assert all(count == 1 for count in steps.values()), steps

    @invariant()
    def a_start_waits_for_the_fencing_time(self) -> None:
        awards = {award.fence: award for award in self.world.snapshot.awards}
        for at, fence, move in self.world.moved:
            if not isinstance(move, m.IssueCommand) or move.kind != "start":
                continue
            for old in awards.values():
                if old.fence < fence and old.outcome == "lost" and old.last_beat_at is not None:
                    assert at >= fenced_at(old.last_beat_at, self.world.policy.liveness) or _stopped(self.world, old)

    @invariant()
    def an_end_rests_on_outputs_or_on_two_providers(self) -> None:
        job, snapshot = self.world.job, self.world.snapshot
        if job.state == "SUCCEEDED":
            assert snapshot.head is not None
            assert snapshot.head.final
        paid = snapshot.escrow
        over = paid is None or paid.cancelled or self.world.now >= paid.deadline
        if job.state == "FAILED" and not over:
            told = {award.provider for award in snapshot.awards if award.outcome in ("moved", "undumpable")}
            assert len(told) > 1

    @invariant()
    def an_ended_job_leaves_no_award(self) -> None:
        if self.world.job.state == "PARKED":
            assert self.world.snapshot.award is None
        if self.world.job.state in ENDED:
            assert self.world.snapshot.award is None
            assert self.world.job.due_at is None or self.world.snapshot.leases


def _stopped(world: World, award: object) -> bool:
    fence = getattr(award, "fence")  # noqa: B009
    answers = (world.snapshot.command(f"{kind}/{fence}") for kind in ("stop", "freeze"))
    return any(answer is not None and bool(answer.ok) for answer in answers)


AnyWorld.TestCase.settings = settings(
    max_examples=60, stateful_step_count=50, deadline=None, suppress_health_check=list(HealthCheck)
)
TestAnyWorld = AnyWorld.TestCase
