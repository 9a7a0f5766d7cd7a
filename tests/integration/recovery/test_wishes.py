"""Wishes of a tenant on real tables."""

import pytest

from everlease.db import jobs
from recovery import apply
from tests.support.recovery import Stage

pytestmark = pytest.mark.anvil


def wish(stage: Stage, job: str, name: str) -> None:
    """As the tenant's request leaves it."""
    with stage.database.transaction() as tx:
        jobs.lock(tx, job).wish = name
    apply.advance(stage.desk, job)


def test_steps_are_numbered_however_many_commands_there_were(stage: Stage) -> None:
    stage.node(5)
    job = stage.launch()
    stage.run_on(job, 5)
    for checkpoints in (66, 1):
        wish(stage, job, "hibernate")
        stage.answer(job, "checkpoint", ok=False, error="the store is full")
        apply.advance(stage.desk, job)
        stage.answer(job, "thaw")
        for _ in range(checkpoints):
            wish(stage, job, "checkpoint")
            stage.answer(job, "checkpoint")
    with stage.database.transaction() as tx:
        steps = [command.step for command in stage.commands(tx, job)]
    fence = stage.award(job).fence
    assert steps[-1] == f"checkpoint/{fence}/67"
    assert [step for step in steps if step.startswith("hold")] == [f"hold/hibernate-{n}/{fence}" for n in (1, 2)]
