"""What a lease's final receipt pays for: all that was served, or what was saved when the host failed the job."""

from dataclasses import replace

import pytest

from everlease.domain.earning import UNSAVED_MARGIN_S
from everlease.domain.jobspec import CheckpointMode
from everlease.domain.lease import LeaseState
from everlease.domain.snapshot import Snapshot
from recovery.planner.funds import available
from recovery.planner.hosts import HOST_FAULT, LEFT, STOPPED
from recovery.planner.leases import LOST
from recovery.planner.pay import paid_in_full
from tests.support.model import NODES, POLICY, World, escrow, new_job, spec

A, B = NODES[:2]


def served(world: World, seconds: float) -> None:
    """The host serves for so long."""
    world.now += seconds
    world.beat()


def paying_as_served() -> World:
    policy = replace(spec().checkpoint, pay_unsaved=True)
    return World(Snapshot(job=new_job(spec=replace(spec(), checkpoint=policy)), escrow=escrow()))


def saved_then_served() -> World:
    """100 seconds that are in a checkpoint, and 50 that are in none."""
    world = World()
    world.run(A)
    served(world, 100)
    world.commit()
    served(world, 50)
    return world


def final(world: World) -> int:
    receipt = world.snapshot.receipts["lease-1"]
    assert receipt.final
    return receipt.earned


def test_a_fault_of_the_host_costs_it_what_was_in_no_checkpoint() -> None:
    world = saved_then_served()
    world.exit(0, host_fault="its Docker went away")
    world.set_award(1, host_faults=POLICY.max_host_faults)
    world.settle()
    assert world.snapshot.awards[0].outcome == HOST_FAULT
    assert final(world) == 100


def test_a_restart_that_the_host_made_necessary_is_not_paid_by_the_next_checkpoint() -> None:
    world = saved_then_served()
    world.exit(0, host_fault="its Docker went away")
    world.settle()
    world.answer("restart")
    world.settle()
    served(world, 30)
    world.commit()
    world.set_job(wish="cancel")
    world.settle()
    world.answer("stop")
    world.settle()
    assert final(world) == 130, "not 180: the job did 50 of them twice"


def test_a_program_that_fails_is_paid_for_and_so_is_what_its_tenant_ends() -> None:
    failing, cancelled = saved_then_served(), saved_then_served()
    failing.set_award(1, restarts=POLICY.max_restarts)
    failing.exit(3)
    failing.settle()
    assert (failing.snapshot.awards[0].outcome, final(failing)) == ("moved", 150)
    cancelled.set_job(wish="cancel")
    cancelled.settle()
    cancelled.answer("stop")
    cancelled.settle()
    assert (cancelled.job.state, final(cancelled)) == ("CANCELLED", 150)


@pytest.mark.parametrize("durable", [True, False])
def test_a_host_that_stops_is_paid_to_its_end_where_it_leaves_the_job_with_its_checkpoint(durable: bool) -> None:
    world = saved_then_served()
    if durable:
        world.commit()
    served(world, 0)
    world.goodbye(still=durable)
    world.settle()
    assert world.snapshot.awards[0].outcome == (STOPPED if durable else LEFT)
    assert final(world) == (150 if durable else 100)


def test_who_stops_at_an_older_checkpoint_than_its_own_is_paid_to_that() -> None:
    world = World()
    world.run(A)
    served(world, 100)
    world.goodbye()
    world.settle()
    assert (world.snapshot.awards[0].outcome, final(world)) == (STOPPED, 0)


def test_a_job_that_ended_is_paid_in_full_once_its_outputs_are_in() -> None:
    world = saved_then_served()
    world.exit(0)
    world.commit(final=True, mode="files")
    world.settle()
    assert (world.job.state, final(world)) == ("SUCCEEDED", 150)
    award = world.snapshot.awards[0]
    assert not paid_in_full(saved_then_served().snapshot, award, "finished"), "without them the work is nowhere"


def test_an_order_that_pays_as_served_pays_in_any_case() -> None:
    world = paying_as_served()
    world.run(A)
    served(world, 100)
    world.goodbye(still=False)
    world.settle()
    assert (world.snapshot.awards[0].outcome, final(world)) == (LEFT, 100)


def test_without_checkpoints_every_second_served_is_paid() -> None:
    world = World(Snapshot(job=new_job(spec=spec(CheckpointMode.NONE)), escrow=escrow()))
    world.run(A)
    served(world, 100)
    world.goodbye(still=False)
    world.settle()
    assert final(world) == 100


def test_what_is_not_paid_is_there_for_the_next_lease() -> None:
    def free(world: World) -> int:
        world.set_lease("lease-1", seen_at=int(world.now))
        award = world.snapshot.awards[0]
        world.set_award(1, ended_at=world.now, outcome=LOST)
        assert not paid_in_full(world.snapshot, award, LOST)
        return available(world.snapshot, world.now)

    long, short = saved_then_served(), saved_then_served()
    served(long, 1_000)
    assert free(long) == free(short), "only receipts are reserved for"


def never_saving() -> World:
    """A day of service that is in no checkpoint."""
    world = World()
    world.run(A)
    served(world, 86_400)
    return world


def test_a_host_that_saves_nothing_is_paid_no_more_than_the_order_lets_it_leave_unsaved() -> None:
    failing, cancelled, voided = never_saving(), never_saving(), never_saving()
    bound = failing.job.spec.checkpoint.max_lost_work_s + int(UNSAVED_MARGIN_S)
    failing.set_award(1, restarts=POLICY.max_restarts)
    failing.exit(1)
    cancelled.set_job(wish="cancel")
    cancelled.settle()
    cancelled.answer("stop")
    voided.set_lease("lease-1", state=LeaseState.CLOSED)
    for world in (failing, cancelled, voided):
        world.settle()
        assert final(world) == bound, world.snapshot.awards[0].outcome


@pytest.mark.parametrize("committed", [True, False])
def test_whose_job_runs_out_of_time_is_paid_to_its_end_once_the_last_checkpoint_is_in(committed: bool) -> None:
    world = saved_then_served()
    deadline = int(world.now) + int(POLICY.margin_s) - 1
    assert world.snapshot.escrow is not None
    world.snapshot = replace(world.snapshot, escrow=replace(world.snapshot.escrow, deadline=deadline))
    world.settle()
    if committed:
        world.commit()
    served(world, 5)
    world.answer("hold", ok=committed, error="" if committed else "the disk is full")
    world.settle()
    assert world.snapshot.awards[0].outcome == "exhausted"
    assert final(world) == (155 if committed else 100)
