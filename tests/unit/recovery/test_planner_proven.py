"""Providers that are proven, and strangers: whose word counts, and who waits behind whom in a recovery."""

from dataclasses import replace

from everlease.domain.reserve import ROUNDS, Posted
from recovery.planner.bidding import PROVEN_FIRST
from tests.support.model import POLICY, RATE, World, spec
from tests.unit.recovery.test_planner_ends import HONEST, cannot_dump, fails, of_order
from tests.unit.recovery.test_planner_running import A, B, C, recover, running


def test_strangers_alone_cannot_fail_a_job_in_a_market_that_knows_others() -> None:
    """Two addresses that never served may be one party: with a proven provider it is FAILED, three alone park it."""
    for third, state in ((HONEST, "FAILED"), (C, "PARKED")):
        world = of_order()
        world.trusted = frozenset({HONEST})
        for node in (A, B):
            recover(world, node)
            fails(world, 7)
            assert world.job.state == "AUCTIONING"
        recover(world, third)
        fails(world, 7)
        assert world.job.state == state, world.job.reason


def test_strangers_alone_cannot_say_that_nobody_can_dump_a_job() -> None:
    world = of_order(spec(fall_back=True))
    world.trusted = frozenset({HONEST})
    modes = []
    for node in (A, B, HONEST, C):
        recover(world, node)
        cannot_dump(world)
        world.settle()
        world.commit(mode="files")
        modes.append(world.snapshot.awards[-1].mode)
        world.lose()
        world.settle()
    assert modes == ["process", "process", "process", "files"]


def test_in_a_recovery_a_provider_that_never_served_here_waits_behind_those_that_did() -> None:
    for trusted, winner in ((frozenset({C}), C), (frozenset[str](), B)):
        world = running()
        world.trusted = trusted
        world.lose()
        world.settle()
        world.offer(B, rate=1)
        world.offer(C)
        world.now += POLICY.recovery_window_s
        world.settle()
        assert world.snapshot.awards[-1].node == winner


def bids_in_recovery(*, newcomer: int, known: int, until: float) -> tuple[str, int] | None:
    """Node and rate of the award, ``until`` seconds after the auction began, with C alone proven."""
    world = World(policy=replace(POLICY, posted=Posted(cpu=RATE // 2, gib=0, gpu=0)), trusted=frozenset({C}))
    world.run(A)
    assert world.snapshot.awards[-1].rate_per_hour == RATE // 2
    world.commit()
    world.lose()
    world.settle()
    world.offer(B, rate=newcomer)
    world.offer(C, rate=known)
    begun = world.now
    while world.now < begun + until and world.job.state == "AUCTIONING":
        world.now += 0.1
        world.settle()
    award = world.snapshot.awards[-1]
    return (award.node, award.rate_per_hour) if award.node != A else None


ROUND_S = POLICY.recovery_rise_s / ROUNDS
WINDOW_S = POLICY.recovery_window_s


def test_a_proven_provider_that_asks_for_the_most_is_waited_for_only_a_few_rounds() -> None:
    waited = WINDOW_S + PROVEN_FIRST * ROUND_S
    assert bids_in_recovery(newcomer=1, known=RATE, until=waited - 0.2) is None
    found = bids_in_recovery(newcomer=1, known=RATE, until=waited + 0.3)
    assert found is not None
    assert found[0] == B
    assert found[1] < RATE * 3 // 4, "at the reserve of that round, not at the order's maximum"


def test_a_proven_provider_within_the_reserve_of_the_round_wins_over_a_cheaper_stranger() -> None:
    for asked, until in ((RATE // 2, 1.0), (RATE * 11 // 20, WINDOW_S + 2 * ROUND_S)):
        found = bids_in_recovery(newcomer=1, known=asked, until=until)
        assert found is not None
        assert found[0] == C


def test_in_a_first_auction_it_does_not() -> None:
    world = World(trusted=frozenset({C}))
    world.settle()
    world.offer(B, rate=1)
    world.offer(C)
    world.now += POLICY.auction_window_s
    world.settle()
    assert world.snapshot.awards[-1].node == B
