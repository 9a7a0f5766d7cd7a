"""An agent killed (-9) at each named step of its work, and started again: nothing is lost, nothing is done twice."""

import pytest

from everlease.domain.manifest import CID
from everlease.wire.commands import Stop, TakeCheckpoint
from provider_agent import guards
from provider_agent.runtime import oci
from provider_agent.runtime.daemon import connect
from tests.integration.agent.conftest import Agent, Launch, World
from tests.integration.agent.test_move import numbers
from tests.support.waiting import wait_for


def connected(world: World, agent: Agent, crash_at: str | None = None) -> None:
    """Start the agent and wait for its session: the gateway may not know yet that the one before is over."""
    before = world.gateway.nodes.get(agent.address)
    agent.start(crash_at)
    world.gateway.until(lambda g: g.nodes.get(agent.address) not in (None, before), 90)


def again(world: World, agent: Agent) -> None:
    """The agent dies at its crash point; a new one takes up what it left."""
    assert agent.ended() == -9
    connected(world, agent)


def goes_on(world: World, job: Launch) -> None:
    seen = len(job.lines())
    world.gateway.until(lambda g: len(job.lines()) > seen + 10)
    assert numbers(job.lines()) == list(range(1, len(job.lines()) + 1)), "a step is missing or was done twice"


@pytest.mark.parametrize("step", ["prepare.accepted", "prepare.image", "prepare.blocks", "prepare.done"])
def test_killed_while_it_prepares(world: World, step: str) -> None:
    agent = world.agents["a"]
    connected(world, agent, step)
    job = world.job()
    lease = job.award(agent)
    prepare = job.prepare()
    world.gateway.command(agent.address, prepare)
    again(world, agent)
    prepared = world.gateway.until(lambda g: g.results.get((job.id, prepare.step)), 90)
    assert prepared.ok, prepared
    assert world.gateway.do(agent.address, job.start(agent, lease)).ok
    goes_on(world, job)
    job.stop(agent)


@pytest.mark.parametrize("step", ["start.accepted", "start.created", "start.launched", "start.done"])
def test_killed_while_it_starts(world: World, step: str) -> None:
    agent = world.agents["a"]
    connected(world, agent, step)
    job = world.job()
    lease = job.award(agent)
    assert world.gateway.do(agent.address, job.prepare()).ok
    start = job.start(agent, lease)
    world.gateway.command(agent.address, start)
    again(world, agent)
    started = world.gateway.until(lambda g: g.results.get((job.id, start.step)), 90)
    assert started.ok, started
    goes_on(world, job)
    job.stop(agent)


@pytest.mark.parametrize("step", ["begun", "dumped", "stored", "requested", "answered", "done"])
def test_killed_while_it_checkpoints(world: World, step: str) -> None:
    agent = world.agents["a"]
    connected(world, agent, f"checkpoint.{step}")
    job = world.job()
    job.run_on(agent)
    world.gateway.until(lambda g: len(job.lines()) > 5)
    take = TakeCheckpoint(job_id=job.id, fence=job.fence, step=job.step("checkpoint"))
    world.gateway.command(agent.address, take)
    again(world, agent)
    taken = world.gateway.until(lambda g: g.results.get((job.id, take.step)), 90)
    assert taken.ok, taken
    seq, head = world.gateway.heads[job.id]
    assert [commit.checkpoint_seq for commit in world.gateway.commits] == list(range(1, seq + 1))
    assert head == taken.result["manifest"]
    assert world.blocks.has([CID(head)])
    goes_on(world, job)
    assert not list((agent.root / "jobs" / job.id / "dumps").glob("*")), "a dump was left behind"
    job.stop(agent)


def test_its_lease_runs_out_before_it_is_back_in_the_middle_of_a_checkpoint(world: World) -> None:
    agent = world.agents["a"]
    connected(world, agent, "checkpoint.done")
    job = world.job()
    job.run_on(agent)
    world.gateway.until(lambda g: len(job.lines()) > 5)
    take = TakeCheckpoint(job_id=job.id, fence=job.fence, step=job.step("checkpoint"))
    world.gateway.command(agent.address, take)
    assert agent.ended() == -9
    folder = oci.container_folder(agent.root / "runtime", containers(agent)[0])
    wait_for(lambda: guards.fenced(folder))
    connected(world, agent)
    taken = world.gateway.until(lambda g: g.results.get((job.id, take.step)), 90)
    assert taken.ok, taken
    goes_on(world, job)
    job.stop(agent)


@pytest.mark.parametrize("step", ["start.fetched", "start.created", "start.launched"])
def test_killed_while_it_restores(world: World, step: str) -> None:
    agent = world.agents["a"]
    connected(world, agent)
    job = world.job()
    job.run_on(agent)
    world.gateway.until(lambda g: len(job.lines()) > 5)
    take = TakeCheckpoint(job_id=job.id, fence=job.fence, step=job.step("checkpoint"), hold=True)
    assert world.gateway.do(agent.address, take).ok
    before = job.lines()
    job.stop(agent)
    agent.kill()
    connected(world, agent, step)
    lease = job.award(agent)
    assert world.gateway.do(agent.address, job.prepare()).ok
    start = job.start(agent, lease)
    world.gateway.command(agent.address, start)
    again(world, agent)
    started = world.gateway.until(lambda g: g.results.get((job.id, start.step)), 90)
    assert started.ok, started
    world.gateway.until(lambda g: len(job.lines()) > 5)
    whole = numbers(before) + numbers(job.lines())
    assert whole == list(range(1, len(whole) + 1)), "a held checkpoint loses no step"
    job.stop(agent)


@pytest.mark.parametrize("step", ["stop.accepted", "stop.removed"])
def test_killed_while_it_stops(world: World, step: str) -> None:
    agent = world.agents["a"]
    connected(world, agent, step)
    job = world.job()
    job.run_on(agent)
    stop = Stop(job_id=job.id, fence=job.fence, step=job.step("stop"), grace_s=0)
    world.gateway.command(agent.address, stop)
    again(world, agent)
    assert world.gateway.until(lambda g: g.results.get((job.id, stop.step)), 60).ok
    assert not (agent.root / "jobs" / job.id).exists()
    assert containers(agent) == []


@pytest.mark.parametrize("step", ["final.dumped", "final.committed"])
def test_killed_while_it_keeps_the_outputs(world: World, step: str) -> None:
    agent = world.agents["a"]
    connected(world, agent, step)
    job = world.job("open('/result', 'w').write('42'); print('done', flush=True)")
    job.run_on(agent)
    again(world, agent)
    notice = world.gateway.until(lambda g: next((n for n in g.notices if n.kind == "exited"), None))
    assert notice.data["code"] == 0
    assert world.gateway.commits[-1].final
    assert job.lines() == ["done"]
    job.stop(agent)


def containers(agent: Agent) -> list[str]:
    client = connect(agent.docker.paths.socket)
    try:
        return [str(item["Id"]) for item in client.api.containers(all=True)]
    finally:
        client.close()
