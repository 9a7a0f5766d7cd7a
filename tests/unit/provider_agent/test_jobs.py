"""A job that is dropped while it comes back to the same node under a newer fence."""

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from everlease.wire.commands import Freeze, Prepare, Stop
from provider_agent.host import Folders, Host
from provider_agent.jobs import Job
from provider_agent.journal import Journal
from provider_agent.records import JobRecord

JOB = "0x" + "ab" * 32


def record(fence: int) -> JobRecord:
    prepare = Prepare(job_id=JOB, fence=fence, step=f"prepare/{fence}", spec={}, store_token="t")
    return JobRecord(job_id=JOB, fence=fence, phase="prepared", prepare=prepare)


def host_of(folder: Path, remove_job: Callable[[str], None]) -> Host:
    """A host with a real journal and folders, and an engine that only removes."""
    parts: dict[str, Any] = {
        "journal": Journal(folder / "journal.db"),
        "folders": Folders(folder),
        "engine": SimpleNamespace(remove_job=remove_job),
        "crash": SimpleNamespace(reach=lambda point: None),
        "deadline": lambda: 0.0,
    }
    return cast(Host, SimpleNamespace(**parts))


@pytest.mark.parametrize(("newer", "stays"), [(False, False), (True, True)])
def test_a_refused_fence_takes_what_was_prepared_under_it_alone(newer: bool, stays: bool, tmp_path: Path) -> None:
    host = host_of(tmp_path, lambda job_id: None)
    host.journal.put_job(record(1))

    async def scenario() -> None:
        job = Job(host, JOB)
        async with job._turn:
            dropping = asyncio.create_task(job.refused())
            await asyncio.sleep(0.01)
            assert job.cancel.is_set()
            if newer:
                host.journal.put_job(record(2))
        await dropping

    asyncio.run(scenario())
    left = host.journal.job(JOB)
    assert (left is not None) == stays
    assert left is None or left.fence == 2


def test_commands_under_the_newer_fence_wait_for_a_removal_that_has_begun(tmp_path: Path) -> None:
    begun, may_end = threading.Event(), threading.Event()
    removals: list[str] = []

    def remove_job(job_id: str) -> None:
        begun.set()
        assert may_end.wait(10)
        removals.append(job_id)

    host = host_of(tmp_path, remove_job)
    host.journal.put_job(record(1))

    async def scenario() -> None:
        job = Job(host, JOB)
        dropping = asyncio.create_task(job.refused())
        await asyncio.to_thread(begun.wait, 10)
        begun.clear()
        after = asyncio.create_task(Job(host, JOB, after=job).carry_out(Stop(job_id=JOB, fence=2, step="s", grace_s=0)))
        await asyncio.sleep(0.05)
        assert not begun.is_set(), "the newer job's command has not begun"
        may_end.set()
        await asyncio.gather(dropping, after)

    asyncio.run(scenario())
    assert removals == [JOB, JOB]


def test_a_freeze_during_a_start_answers_once_the_start_is_given_up(tmp_path: Path) -> None:
    host = host_of(tmp_path, lambda job_id: None)
    host.journal.put_job(record(1).model_copy(update={"phase": "starting"}))

    async def scenario() -> None:
        job = Job(host, JOB)
        async with job._turn:
            freezing = asyncio.create_task(job.carry_out(Freeze(job_id=JOB, fence=1, step="freeze/1")))
            await asyncio.sleep(0.01)
            assert job.cancel.is_set(), "the start is told"
            assert not freezing.done(), "and only its end is an answer"
        assert await freezing == {}

    asyncio.run(scenario())
