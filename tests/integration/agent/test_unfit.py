"""A checkpoint that can't live on a host is refused by its agent before a byte is fetched."""

from everlease.wire.commands import TakeCheckpoint
from tests.integration.agent.conftest import World
from tests.integration.agent.test_crashes import connected


def test_prepare_and_start_refuse_what_the_checkpoint_needs_and_the_host_lacks(world: World) -> None:
    agent = world.agents["a"]
    connected(world, agent)
    job = world.job()
    job.run_on(agent)
    world.gateway.until(lambda g: len(job.lines()) > 5)
    take = TakeCheckpoint(job_id=job.id, fence=job.fence, step=job.step("checkpoint"))
    assert world.gateway.do(agent.address, take).ok
    needs = dict(world.gateway.commits[-1].requirements)
    assert needs["gpu_model"] == "", "a job without a GPU needs none"
    job.stop(agent)
    lacking = needs | {"cpu_flags": needs["cpu_flags"] + " avx9000"}
    lease = job.award(agent)
    refused = world.gateway.do(agent.address, job.prepare(checkpoint_requirements=lacking))
    assert not refused.ok
    assert "avx9000" in refused.result["unfit"]
    assert not (agent.root / "jobs" / job.id).exists()
    assert world.gateway.do(agent.address, job.prepare(checkpoint_requirements=needs)).ok
    refused = world.gateway.do(agent.address, job.start(agent, lease, checkpoint_requirements=lacking))
    assert "avx9000" in refused.result["unfit"]
    started = job.start(agent, lease, checkpoint_requirements=needs)
    assert world.gateway.do(agent.address, started).ok
    job.stop(agent)
