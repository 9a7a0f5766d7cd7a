"""When the next checkpoint is due and what a loss would cost: properties over all costs and policies."""

from hypothesis import given
from hypothesis import strategies as st

from everlease.domain.jobspec import CheckpointMode, CheckpointPolicy
from everlease.wire.commands import Prepare
from provider_agent.records import JobRecord
from provider_agent.schedule import LONGEST_RETRY_S, loss_now, next_checkpoint, retry_after

seconds = st.floats(0, 10_000)


def record(**changes: object) -> JobRecord:
    job = "0x" + "ab" * 32
    prepare = Prepare(job_id=job, fence=1, step="p", spec={}, store_token="t")
    base = JobRecord(job_id=job, fence=1, phase="running", prepare=prepare, started_at=1000.0)
    return base.model_copy(update=changes)


def policy(max_lost: int, least: int) -> CheckpointPolicy:
    return CheckpointPolicy(CheckpointMode.PROCESS, max_lost, least)


@given(pause=seconds, upload=seconds, mtbf=st.floats(1, 1e7), most=st.integers(1, 10_000), least=st.integers(0, 10_000))
def test_the_bound_holds_wherever_it_can(pause: float, upload: float, mtbf: float, most: int, least: int) -> None:
    job = record(tried=True, taken_at=2000.0, pause_s=pause, upload_s=upload)
    plan = next_checkpoint(job, policy(most, least), mtbf, 10)
    assert plan.due >= 2000.0
    assert plan.bound <= max(most, pause + upload) + 1e-6


def test_the_trial_comes_soon_after_the_start() -> None:
    assert next_checkpoint(record(), policy(300, 100), 3600, 10).due == 1010.0


def test_a_restored_job_counts_from_its_start() -> None:
    job = record(tried=True, taken_at=0.0)
    assert next_checkpoint(job, policy(300, 100), 3600, 10).due == 1100.0


@given(late=st.integers(0, 10**6))
def test_a_late_checkpoint_lengthens_the_loss_shown(late: int) -> None:
    job = record(tried=True, taken_at=2000.0, pause_s=1.0, upload_s=2.0)
    plan = next_checkpoint(job, policy(300, 100), 3600, 10)
    shown = loss_now(job, plan, 2000.0 + late)
    assert shown >= late
    assert shown >= plan.bound


def test_retries_wait_longer_and_longer_up_to_a_limit() -> None:
    waits = [retry_after(failures) for failures in range(1, 12)]
    assert waits == sorted(waits)
    assert waits[-1] == LONGEST_RETRY_S
