"""What looks after a running job begins again when it fails, and costs the same for any number of processes."""

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from everlease.wire.commands import Prepare
from provider_agent import life as module
from provider_agent.checkpointer import Checkpoints
from provider_agent.errors import JobGone, LinkDown
from provider_agent.host import Host
from provider_agent.life import Life, Owner
from provider_agent.records import JobRecord

JOB = "0x" + "ab" * 32


@pytest.fixture
def life(monkeypatch: pytest.MonkeyPatch) -> Life:
    monkeypatch.setattr(module, "AGAIN_S", 0.0)
    checkpoints = cast(Checkpoints, SimpleNamespace(job_id=JOB))
    return Life(cast(Host, None), cast(Owner, None), checkpoints)


def test_a_task_that_fails_of_what_nobody_expected_begins_again(life: Life) -> None:
    errors = [LinkDown("the link is down"), RuntimeError("a bug"), OSError(28, "full")]
    tries = 0

    async def work() -> None:
        nonlocal tries
        tries += 1
        if errors:
            raise errors.pop()

    asyncio.run(life._keep_up(work))
    assert tries == 4


def test_a_job_that_is_gone_is_left_alone(life: Life) -> None:
    tries = 0

    async def work() -> None:
        nonlocal tries
        tries += 1
        raise JobGone(JOB)

    asyncio.run(life._keep_up(work))
    assert tries == 1


@pytest.mark.parametrize(
    ("phase", "code", "fault", "storing"),
    [
        ("exited", 0, "", True),
        ("exited", 3, "", False),
        ("exited", 0, "Docker", False),
        ("running", None, "", False),
        ("held", None, "", True),
    ],
)
def test_a_heartbeat_tells_a_job_that_stands_still_to_be_stored_from_one_that_only_stands_still(
    tmp_path: Path, phase: str, code: int | None, fault: str, storing: bool
) -> None:
    prepare = Prepare(job_id=JOB, fence=1, step="prepare/1", spec={}, store_token="t")
    record = JobRecord(job_id=JOB, fence=1, phase="running", prepare=prepare, container="c" * 64)
    record = record.model_copy(update={"phase": phase, "exit_code": code, "host_fault": fault})
    host = cast(Host, SimpleNamespace(engine=SimpleNamespace(state=tmp_path)))
    checkpoints = cast(Checkpoints, SimpleNamespace(job_id=JOB, dumping=False))
    watched = Life(host, cast(Owner, SimpleNamespace(frozen=False)), checkpoints)
    beat = asyncio.run(watched.beat(record))
    assert (beat.serving, beat.storing) == (False, storing)
