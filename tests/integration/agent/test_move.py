"""The way of a job over two real hosts: the agent and its containers die, another agent goes on from the checkpoint."""

from everlease.wire.commands import TakeCheckpoint
from tests.integration.agent.conftest import World


def numbers(lines: list[str]) -> list[int]:
    return [int(line.split()[1]) for line in lines if line.startswith("step")]


def test_a_job_outlives_its_host(world: World) -> None:
    first, second = world.agents["a"], world.agents["b"]
    first.start()
    second.start()
    world.gateway.until(lambda g: len(g.nodes) == 2, 90)
    job = world.job()
    job.run_on(first)
    world.gateway.until(lambda g: len(job.lines()) > 10)
    step = TakeCheckpoint(job_id=job.id, fence=job.fence, step=job.step("checkpoint"))
    taken = world.gateway.do(first.address, step)
    assert taken.ok, taken
    assert taken.result["seq"] == 1
    assert world.gateway.heads[job.id] == (1, taken.result["manifest"])
    job.go_past(first)
    before = job.lines()
    first.kill()
    first.docker.kill()

    job.run_on(second)
    world.gateway.until(lambda g: len(job.lines()) > 20)
    after = job.lines()
    start = numbers(after)[0]
    assert numbers(after) == list(range(start, start + len(after))), "steps were skipped or done twice"
    assert 1 < start <= numbers(before)[-1] + 1
    overlap = [line for line in after if line in before]
    assert overlap, "the work since the checkpoint is redone, bit for bit"
    assert set(before[start - 1 :]) <= set(after) or len(after) < len(before) - start + 1
    job.stop(second)
    assert not (second.root / "jobs" / job.id).exists()
