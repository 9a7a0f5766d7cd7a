"""Ends that a hostile host would hide, put off or repeat."""

from dataclasses import replace

import pytest

from everlease.domain.jobspec import CheckpointMode, OnFailure
from everlease.domain.lease import LeaseState
from tests.support.model import POLICY, World, spec
from tests.unit.recovery.test_planner_ends import fails, of_order
from tests.unit.recovery.test_planner_running import A, B, C, recover, running


def crash(world: World, node: str, code: int) -> None:
    recover(world, node)
    world.commit()
    fails(world, code)
    world.now += 2 * POLICY.fault_wait_max_s


@pytest.mark.parametrize(("on_failure", "state"), [(OnFailure.FAIL, "FAILED"), (OnFailure.PARK, "PARKED")])
def test_four_runs_in_a_row_that_end_alike_at_two_providers_are_the_programs_fault(
    on_failure: OnFailure, state: str
) -> None:
    world = of_order(replace(spec(), on_failure=on_failure))
    for node in (A, B, A):
        crash(world, node, 7)
    world.settle()
    assert world.job.state not in ("FAILED", "PARKED")
    crash(world, B, 7)
    world.settle()
    assert world.job.state == state
    assert world.job.reason == "the job ended with exit code 7 4 times in a row, at 2 providers"


def test_two_strangers_in_a_market_that_knows_somebody_can_only_have_it_parked() -> None:
    """They may be one party, so the job has not FAILED; and it does not crash there for ever."""
    world = of_order()
    world.trusted = frozenset({C})
    for node in (A, B, A, B):
        crash(world, node, 7)
    world.settle()
    assert world.job.state == "PARKED"


@pytest.mark.parametrize("state", [LeaseState.CLOSED, LeaseState.SUSPENDED])
def test_a_job_that_ended_well_has_ended_whatever_became_of_its_lease(state: LeaseState) -> None:
    world = running()
    world.commit(final=True)
    world.exit(0)
    world.set_lease(world.snapshot.awards[-1].lease_id, state=state)
    world.settle()
    assert (world.job.state, world.snapshot.awards[-1].outcome) == ("SUCCEEDED", "finished")


@pytest.mark.parametrize(("state", "outcome"), [(LeaseState.CLOSED, "gave_notice"), (LeaseState.SUSPENDED, "voided")])
def test_a_tenants_suspension_is_not_the_notice_of_its_host(state: LeaseState, outcome: str) -> None:
    world = running()
    world.set_lease(world.snapshot.awards[-1].lease_id, state=state, noticed=True)
    world.settle()
    assert world.snapshot.awards[0].outcome == outcome


@pytest.mark.parametrize("ends", [[(A, 7)] * 4, [(A, 7), (B, 7), (A, 7), (B, 8)]])
def test_one_provider_alone_or_other_codes_are_not(ends: list[tuple[str, int]]) -> None:
    world = of_order()
    for node, code in ends:
        crash(world, node, code)
    world.settle()
    assert world.job.state not in ("FAILED", "PARKED")


def test_outputs_on_top_do_not_turn_a_job_of_processes_into_one_of_files() -> None:
    world = of_order(spec(CheckpointMode.AUTO, fall_back=True))
    recover(world, A)
    world.commit()
    world.commit(final=True, mode="files")
    world.set_award(world.job.fence, undumpable="it uses io_uring")
    world.settle()
    assert world.snapshot.awards[0].outcome == "undumpable"


def test_outputs_that_do_not_come_hold_up_no_cancel() -> None:
    world = running()
    world.set_job(wish="cancel")
    world.settle()
    world.answer("stop")
    world.exit(0)
    world.settle()
    world.now += POLICY.stop_timeout_s
    world.settle()
    assert world.job.state == "CANCELLED"


def test_outputs_that_come_in_time_make_a_cancelled_job_one_that_ended_well() -> None:
    world = running()
    world.exit(0)
    world.set_job(wish="cancel")
    world.settle()
    assert world.job.state == "CANCELLING"
    world.commit(final=True, mode="files")
    world.now += POLICY.stop_timeout_s
    world.settle()
    assert world.job.state == "SUCCEEDED"


def test_who_gave_notice_and_ended_its_lease_with_the_job_on_it_does_not_have_it_again_at_once() -> None:
    world = running()
    world.set_lease("lease-1", noticed=True)
    world.settle()
    world.set_lease("lease-1", state=LeaseState.CLOSED)
    world.settle()
    assert world.snapshot.awards[0].outcome == "gave_notice"
    assert "gave notice" in world.snapshot.auctions[-1].excluded[A]
