"""A Start that could not be sent: whoever won waits his turn, and what is nobody's doing uses up no leases."""

from dataclasses import replace

from recovery import moves as m
from tests.support.model import NODES, POLICY, World
from tests.unit.recovery.test_planner_running import A, B, running

NO_KEY = "generation 3 of job 0x0a has no key"


def unsent(world: World) -> bool:
    """The gateway could not send the Start."""
    if not world.answer("start", ok=False, error=NO_KEY):
        return False
    commands = world.snapshot.commands
    last = max(i for i, c in enumerate(commands) if c.kind == "start" and c.error == NO_KEY)
    world.snapshot = replace(
        world.snapshot, commands=(*commands[:last], replace(commands[last], sent_at=None), *commands[last + 1 :])
    )
    return True


def hour(world: World, *bidders: str) -> int:
    """An hour in which these bid and no Start can be sent; how many leases it cost."""
    before = len([move for _, _, move in world.moved if isinstance(move, m.EnqueueOpen)])
    for _ in range(3600):
        world.offer(*bidders)
        world.now += 1
        world.settle()
        world.answer("prepare")
        world.mine()
        world.settle()
        if unsent(world):
            world.settle()
    return len([move for _, _, move in world.moved if isinstance(move, m.EnqueueOpen)]) - before


def test_a_key_that_is_gone_costs_a_job_time_and_few_leases() -> None:
    world = running()
    world.lose()
    assert hour(world, *NODES) <= 9, "15 s doubled eight times are over an hour"
    assert world.job.state != "FAILED"
    assert world.job.head_seq == 1
    assert {award.outcome for award in world.snapshot.awards[1:]} == {"unsent"}


def test_one_provider_that_is_never_there_for_its_start_keeps_nobody_from_the_job() -> None:
    world = running()
    world.lose()
    world.settle()
    world.offer(A)
    world.now += 1
    world.settle()
    while not unsent(world):
        world.answer("prepare")
        world.mine()
        world.now += 1
        world.settle()
    world.settle()
    auction = world.snapshot.auctions[-1]
    assert (world.job.state, auction.closed_at) == ("AUCTIONING", None), "the next call comes at once"
    assert "could not be handed" in auction.excluded[A]
    assert B not in auction.excluded
    assert POLICY.fault_wait_s(1) == POLICY.capacity_wait_s
