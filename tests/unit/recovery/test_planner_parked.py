"""PARKED: nothing runs, nothing is paid, head and history are kept, and the tenant lets the job go on."""

from dataclasses import replace

from everlease.domain.jobspec import OnFailure
from everlease.domain.lease import LeaseState
from everlease.domain.snapshot import Snapshot
from tests.support.model import World, escrow, new_job, spec
from tests.unit.recovery.test_planner_ends import fails
from tests.unit.recovery.test_planner_running import A, B, C, recover, settles


def parked() -> World:
    """Its program failed in the same way at A and B; C left the checkpoint that it failed from."""
    order = replace(spec(), on_failure=OnFailure.PARK)
    world = World(Snapshot(job=new_job(spec=order), escrow=escrow()))
    world.run(C)
    world.commit()
    world.goodbye()
    world.settle()
    for node in (A, B):
        recover(world, node)
        fails(world, 3)
    assert world.job.state == "PARKED"
    return world


def test_a_parked_job_holds_no_lease_and_keeps_its_head() -> None:
    world = parked()
    assert world.job.reason == "the job ended with exit code 3 at 2 providers, from checkpoint 1"
    assert world.snapshot.award is None
    while world.mine():
        world.settle()
    assert {lease.state for lease in world.snapshot.leases} == {LeaseState.CLOSED}
    assert settles(world)[-1] == ("lease-3", "close")
    assert (world.job.head_seq, world.job.due_at) == (1, float(world.job.order.deadline))


def test_nothing_but_its_tenant_lets_it_go_on() -> None:
    world = parked()
    before = len(world.snapshot.auctions)
    world.snapshot = replace(world.snapshot, news_at=world.now, escrow=escrow(balance=10**10, epochs=3))
    world.now += 86_400
    world.settle()
    for wish in ("migrate", "hibernate", "checkpoint"):
        world.set_job(wish=wish)
        world.settle()
        assert (world.job.state, world.job.wish) == ("PARKED", None)
    assert len(world.snapshot.auctions) == before


def test_resumed_it_begins_anew_from_its_head_and_earlier_exits_count_no_more() -> None:
    world = parked()
    world.set_job(wish="resume")
    world.settle()
    assert (world.job.state, world.snapshot.auctions[-1].excluded) == ("AUCTIONING", {}), "everybody is asked"
    recover(world, A)
    assert (world.job.state, world.snapshot.awards[-1].restore_seq) == ("RUNNING", 1)
    fails(world, 3)
    assert world.job.state == "AUCTIONING"
    recover(world, B)
    fails(world, 3)
    assert world.job.state == "PARKED"


def test_it_can_be_cancelled() -> None:
    world = parked()
    world.set_job(wish="cancel")
    world.settle()
    assert world.job.state == "CANCELLED"


def test_past_its_orders_deadline_or_cancelled_on_chain_it_has_failed() -> None:
    world = parked()
    world.now = float(world.job.order.deadline)
    world.settle()
    assert world.job.state == "FAILED"
    assert "exit code 3" in world.job.reason
    world = parked()
    world.snapshot = replace(world.snapshot, escrow=escrow(cancelled=True, epochs=3))
    world.settle()
    assert world.job.state == "FAILED"


def test_a_parked_jobs_deadline_can_be_extended() -> None:
    world = parked()
    world.now = float(world.job.order.deadline) - 1
    world.snapshot = replace(world.snapshot, escrow=escrow(epochs=3, deadline=world.job.order.deadline + 1000))
    world.settle()
    world.now += 500
    world.settle()
    assert world.job.state == "PARKED"


def test_resumed_without_money_it_is_exhausted_and_not_parked() -> None:
    world = parked()
    while world.mine():
        world.settle()
    world.snapshot = replace(world.snapshot, escrow=escrow(balance=0, epochs=3))
    world.set_job(wish="resume")
    world.settle()
    assert world.job.state == "EXHAUSTED"


def test_a_program_that_fails_in_several_ways_at_three_providers_is_parked_whatever_the_order_says() -> None:
    world = World()
    for code, node in enumerate((A, B, C), 1):
        recover(world, node)
        fails(world, code)
    assert (world.job.state, world.job.reason) == (
        "PARKED",
        "it failed at 3 providers from the same checkpoint",
    )
