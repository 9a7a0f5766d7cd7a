"""How jobs end: no provider ends one alone, however many nodes it has; at an honest provider the job goes on."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from everlease.domain.job import WAITS_FOR_RESUME
from everlease.domain.jobspec import CheckpointMode, JobSpec, OnFailure
from everlease.domain.lease import LeaseState
from everlease.domain.snapshot import Snapshot
from recovery import moves as m
from tests.support.model import NODES, POLICY, World, escrow, new_job, spec
from tests.unit.recovery.test_planner_running import A, B, C, issued, recover, running

BAD = NODES[:4]
HONEST = NODES[4]


def of_order(order: JobSpec | None = None, *fleet: str) -> World:
    """Nobody has bid yet; the nodes of ``fleet`` are one provider's."""
    job = new_job(spec=order or spec())
    return World(Snapshot(job=job, escrow=escrow()), providers=dict.fromkeys(fleet, "one provider"))


def fails(world: World, code: int) -> None:
    """The program exits with this code, however often it is started again."""
    for _ in range(POLICY.max_restarts):
        world.exit(code)
        world.settle()
        world.answer("restart")
        world.settle()
    world.exit(code)
    world.settle()


def exits_without_outputs(world: World) -> None:
    world.set_award(world.job.fence, final_commit_failed="the store said no")
    world.exit(0)


def makes_exits_up(world: World) -> None:
    fails(world, 1)


def cannot_dump(world: World) -> None:
    world.set_award(world.job.fence, undumpable="it uses io_uring")


def is_lost(world: World) -> None:
    assert world.lose()


def says_final_and_is_lost(world: World) -> None:
    world.commit(final=True, mode="files")
    assert world.lose()


def drains(world: World) -> None:
    world.goodbye()


def attack(world: World, harm: Callable[[World], None], *, prepare: bool = True, start: bool = True) -> None:
    """Ten minutes in which the bad provider's four nodes bid the least, and an honest one bids, too."""
    for _ in range(600):
        if world.job.state == "RUNNING":
            return
        world.offer(*BAD, rate=1)
        world.offer(HONEST)
        world.now += 1
        world.settle()
        award = world.snapshot.award
        good = award is None or award.node == HONEST
        world.answer("prepare", ok=good or prepare, error="" if good or prepare else "no such image")
        world.mine()
        world.settle()
        world.answer("start", ok=good or start, error="" if good or start else "criu said no")
        world.settle()
        if world.job.state == "RUNNING" and not good:
            harm(world)
            world.settle()


@pytest.mark.parametrize(
    "harm",
    [exits_without_outputs, makes_exits_up, cannot_dump, is_lost, says_final_and_is_lost, drains],
)
@pytest.mark.parametrize("begun", [False, True])
def test_one_provider_with_four_nodes_ends_no_job(harm: Callable[[World], None], begun: bool) -> None:
    world = of_order(None, *BAD)
    if begun:
        world.run(HONEST)
        world.commit()
        assert world.lose()
    attack(world, harm)
    award = world.snapshot.award
    assert award is not None
    assert (world.job.state, award.node, world.job.head_seq) == ("RUNNING", HONEST, int(begun))
    assert award.mode == "process"


@pytest.mark.parametrize("step", ["prepare", "start"])
@pytest.mark.parametrize("begun", [False, True])
def test_one_provider_that_fails_every_preparation_or_restore_ends_no_job(step: str, begun: bool) -> None:
    world = of_order(None, *BAD)
    if begun:
        world.run(HONEST)
        world.commit()
        assert world.lose()
    attack(world, is_lost, prepare=step != "prepare", start=step != "start")
    award = world.snapshot.award
    assert award is not None
    assert (world.job.state, award.node, world.job.head_seq) == ("RUNNING", HONEST, int(begun))


@pytest.mark.parametrize("harm", [exits_without_outputs, makes_exits_up, cannot_dump, is_lost])
def test_alone_in_the_market_it_makes_the_job_wait_and_costs_few_leases(harm: Callable[[World], None]) -> None:
    world = of_order(None, *BAD)
    for _ in range(1800):
        world.offer(*BAD)
        world.now += 1
        world.settle()
        world.answer("prepare")
        world.mine()
        world.settle()
        world.answer("start")
        world.settle()
        if world.job.state == "RUNNING":
            harm(world)
            world.settle()
    assert world.job.state == "WAITING_CAPACITY"
    assert len(world.snapshot.awards) <= 9, "each wait is twice as long as the one before"
    world.snapshot = replace(world.snapshot, news_at=world.now)
    recover(world, HONEST)
    assert world.job.state == "RUNNING"


# --- SUCCEEDED ---


@pytest.mark.parametrize("told", ["the store said no", ""])
def test_an_exit_0_whose_outputs_are_not_stored_goes_on_elsewhere_from_the_last_checkpoint(told: str) -> None:
    world = running()
    world.exit(0)
    world.settle()
    assert world.job.state == "RUNNING"
    world.set_award(1, final_commit_failed=told)
    world.now += 0 if told else POLICY.final_timeout_s
    world.settle()
    assert (world.job.state, world.snapshot.awards[0].outcome) == ("AUCTIONING", "unstored")
    assert "outputs could not be stored" in world.job.reason
    recover(world, B)
    assert (world.job.state, world.snapshot.awards[-1].restore_seq) == ("RUNNING", 1)


def test_where_several_providers_cannot_store_the_outputs_the_job_waits_longer_each_time() -> None:
    """The store may be away: that is nobody's fault, and costs time alone."""
    world = running()
    for node in (B, C, B):
        exits_without_outputs(world)
        world.settle()
        recover(world, node)
    exits_without_outputs(world)
    world.settle()
    assert world.job.state == "WAITING_CAPACITY"
    assert "the store may be away" in world.job.reason
    assert world.job.due_at == world.now + POLICY.fault_wait_s(3)
    world.snapshot = replace(world.snapshot, news_at=world.now + 1)
    world.now += POLICY.fault_wait_s(3) - 1
    world.settle()
    assert world.job.state == "WAITING_CAPACITY", "no news of a node changes that"
    recover(world, HONEST)
    assert world.job.state == "RUNNING"


@pytest.mark.parametrize("wish", ["migrate", "hibernate", "cancel"])
def test_outputs_that_are_not_stored_end_no_job_in_the_midst_of_a_wish(wish: str) -> None:
    world = running()
    world.set_job(wish=wish)
    world.settle()
    exits_without_outputs(world)
    world.settle()
    world.answer("stop")
    world.settle()
    assert world.job.state == ("CANCELLED" if wish == "cancel" else "AUCTIONING")


def test_a_final_checkpoint_right_after_the_start_is_no_success_and_no_place_to_go_on_from() -> None:
    for begun in (False, True):
        world = running() if begun else World()
        if begun:
            world.lose()
        recover(world, B)
        says_final_and_is_lost(world)
        world.settle()
        assert (world.job.state, world.job.head_seq) == ("AUCTIONING", int(begun))
        recover(world, C)
        assert world.snapshot.awards[-1].restore_seq == int(begun)


# --- FAILED ---


def test_the_same_exit_at_two_providers_from_the_same_checkpoint_fails_the_job() -> None:
    world = of_order()
    for node, state in ((A, "AUCTIONING"), (B, "FAILED")):
        recover(world, node)
        fails(world, 3)
        assert world.job.state == state
    assert world.job.reason == "the job ended with exit code 3 at 2 providers"


def test_not_so_two_hosts_of_one_provider_two_kinds_of_exits_or_two_checkpoints() -> None:
    world = of_order(None, A, B)
    for node in (A, B):
        recover(world, node)
        fails(world, 3)
    recover(world, C)
    fails(world, 139)
    assert world.job.state == "AUCTIONING", "another provider, and another exit"
    recover(world, HONEST)
    world.commit()
    fails(world, 5)
    recover(world, C)
    fails(world, 5)
    assert world.job.state == "AUCTIONING", "from the beginning here, from a checkpoint there"


def test_two_providers_find_out_that_a_job_fails_after_a_checkpoint() -> None:
    """The first has it again: nobody is kept out for ever."""
    world = of_order()
    recover(world, A)
    world.commit()
    fails(world, 1)
    recover(world, B)
    fails(world, 1)
    assert world.job.state == "AUCTIONING"
    recover(world, A)
    fails(world, 1)
    assert (world.job.state, world.job.reason) == (
        "FAILED",
        "the job ended with exit code 1 at 2 providers, from checkpoint 1",
    )


@pytest.mark.parametrize(("on_failure", "state"), [(OnFailure.FAIL, "FAILED"), (OnFailure.PARK, "PARKED")])
def test_a_job_that_insists_on_checkpoints_is_tried_at_two_providers(on_failure: OnFailure, state: str) -> None:
    for order in (spec(CheckpointMode.PROCESS), spec()):
        world = of_order(replace(order, on_failure=on_failure))
        for node, reached in ((A, "AUCTIONING"), (B, state)):
            recover(world, node)
            cannot_dump(world)
            world.settle()
            assert world.job.state == reached
        assert world.job.reason == "the job can't be checkpointed at 2 providers: it uses io_uring"


def test_a_job_that_may_fall_back_is_tried_in_process_mode_until_a_second_provider_cannot_dump_it() -> None:
    world = of_order(spec(fall_back=True))
    modes = []
    for node in (A, B, C):
        recover(world, node)
        cannot_dump(world)
        world.settle()
        assert world.job.state == "RUNNING", "there it goes on with its files"
        world.commit(mode="files")
        modes.append(world.snapshot.awards[-1].mode)
        world.lose()
        world.settle()
    assert modes == ["process", "process", "files"]


def test_no_files_take_the_place_of_processes_that_others_could_dump_on_one_providers_word() -> None:
    world = running(of_order(spec(fall_back=True)))
    world.lose()
    for node in (B, C):
        recover(world, node)
        assert (world.snapshot.awards[-1].mode, world.snapshot.awards[-1].restore_seq) == ("process", 1)
        cannot_dump(world)
        world.settle()
        assert (world.job.state, world.snapshot.awards[-1].outcome) == ("AUCTIONING", "undumpable")
    recover(world, HONEST)
    assert (world.job.state, world.snapshot.awards[-1].mode) == ("RUNNING", "files"), "two providers can't"


# --- what unserved leases cost ---


def dear(leases: int) -> World:
    """The order's deposit bears so many leases that come to nothing."""
    world = of_order()
    order = replace(world.job.order, epoch_fee=10, deposit=leases * 10 * 20)
    world.set_job(order=order)
    return world


def opened(world: World) -> int:
    return len([move for _, _, move in world.moved if isinstance(move, m.EnqueueOpen)])


def test_leases_that_come_to_nothing_cost_a_twentieth_of_the_deposit_at_most() -> None:
    world = dear(3)
    for _ in range(600):
        world.offer(*NODES)
        world.now += 1
        world.settle()
        world.mine()
        world.settle()
        world.answer("prepare", ok=False, error="no such image")
        world.settle()
    assert (world.job.state, opened(world)) == ("WAITING_CAPACITY", 3)
    assert world.job.reason.startswith(f"{WAITS_FOR_RESUME}: 3 leases came to nothing")
    world.now += 10 * POLICY.fault_wait_max_s
    world.snapshot = replace(world.snapshot, news_at=world.now)
    world.settle()
    assert world.job.state == "WAITING_CAPACITY", "it waits for its tenant"
    world.set_job(wish="resume")
    world.settle()
    assert world.job.state == "AUCTIONING"
    recover(world, HONEST)
    assert world.job.state == "RUNNING"


def dry(world: World) -> None:
    """Nobody bids."""
    world.settle()
    world.now += POLICY.auction_window_s + POLICY.patience_s
    world.settle()


def test_bonds_that_hosts_got_for_nothing_count_within_the_same_twentieth() -> None:
    """Also where a lease costs no fee. The first is left out: one host that fails stops no job with a small deposit."""
    for bonds, fee, state in ((1, 400, "AUCTIONING"), (2, 0, "WAITING_CAPACITY"), (1, 500, "WAITING_CAPACITY")):
        world = of_order()
        world.set_job(order=replace(world.job.order, epoch_fee=fee, deposit=20 * (POLICY.bond - 100)))
        for node in (A, B)[:bonds]:
            recover(world, node)
            world.lose()
            world.settle()
            world.set_lease(world.snapshot.awards[-1].lease_id, state=LeaseState.CLEARED)
        dry(world)
        assert world.job.state == "WAITING_CAPACITY"
        world.now += POLICY.fault_wait_max_s
        world.settle()
        assert world.job.state == state
        assert ("fees and bonds" in world.job.reason) == (state != "AUCTIONING")


@pytest.mark.parametrize("served", [10, 70])
def test_two_nodes_that_drain_in_turn_cost_no_more(served: int) -> None:
    world = dear(4)
    world.run(A)
    for turn in range(8):
        here, there = (A, B) if turn % 2 == 0 else (B, A)
        world.now += served
        world.beat()
        world.snapshot = replace(world.snapshot, draining_nodes=frozenset({here}))
        world.settle()
        world.offer(there)
        world.now += POLICY.migration_window_s
        world.settle()
        world.answer("preload")
        world.settle()
        if issued(world, "checkpoint")[-1:] and world.job.state == "MIGRATING":
            world.commit()
            world.answer("hold")
        world.settle()
        for kind in ("prepare", "start"):
            world.mine()
            world.answer(kind)
            world.settle()
    leases = world.snapshot.escrow.epochs if world.snapshot.escrow else 0
    assert (leases == 4) if served < 60 else (leases > 4), "leases that were served are worth their fee"
    assert world.job.state == "RUNNING"


def test_an_open_that_reverts_costs_the_tenant_no_fee() -> None:
    world = dear(2)
    for _ in range(600):
        world.offer(A)
        world.now += 1
        world.settle()
        world.mine(ok=False)
        world.settle()
    assert opened(world) > 2
    assert (world.snapshot.unserved, "came to nothing" in world.job.reason) == (0, False)


def test_an_unserved_job_whose_deadline_comes_is_exhausted_as_any() -> None:
    world = dear(1)
    recover(world, A)
    world.lose()
    world.settle()
    assert world.job.state == "WAITING_CAPACITY"
    world.now = float(world.job.order.deadline)
    world.settle()
    assert world.job.state == "EXHAUSTED"
