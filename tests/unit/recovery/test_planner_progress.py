"""Recoveries: each provider counts once, hosts that are overloaded never count against the program."""

import pytest

from everlease.domain.snapshot import Snapshot
from tests.support.model import NODES, World, escrow, new_job, spec
from tests.unit.recovery.test_planner_running import A, B, C, recover, running


def of_order(max_recoveries: int, **changes: object) -> World:
    return World(Snapshot(job=new_job(spec=spec(max_recoveries=max_recoveries)), escrow=escrow()), **changes)


def test_overloaded_hosts_in_a_row_neither_end_nor_park_a_job() -> None:
    world = of_order(10)
    world.run(A)
    for node in (B, C, A, B, C, A):
        world.lose()
        recover(world, node)
    assert (world.job.state, world.snapshot.recovered) == ("RUNNING", 1), "none of them ever served to a checkpoint"


def test_a_provider_whose_hosts_lose_the_job_again_and_again_is_one_recovery() -> None:
    world = of_order(1, providers=dict.fromkeys(NODES[:4], "one provider"))
    running(world)
    for node in (*NODES[1:4], *NODES[:4]):
        world.lose()
        recover(world, node)
        world.commit()
    assert (world.job.state, world.job.recoveries) == ("RUNNING", 7)


@pytest.mark.parametrize("allowed", [0, 1])
def test_a_job_that_more_providers_lost_than_its_order_allows_is_parked(allowed: int) -> None:
    world = running(of_order(allowed))
    for node in (B, C)[:allowed]:
        world.lose()
        recover(world, node)
        world.commit()
    world.lose()
    world.settle()
    assert (world.job.state, world.job.reason) == (
        "PARKED",
        f"{allowed + 1} providers lost the job, its order allows {allowed}",
    )
    world.set_job(wish="resume")
    world.settle()
    recover(world, B)
    assert world.job.state == "RUNNING", "resumed, the count begins anew"
