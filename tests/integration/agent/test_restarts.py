"""The agent is started anew, as `systemctl restart` does it: it says so before, and the job goes on where it froze."""

import os
import signal
import time

from provider_agent import guards
from provider_agent.installation.stop import announce_restart
from provider_agent.runtime import oci
from provider_agent.runtime.daemon import connect
from tests.integration.agent.conftest import Agent, World
from tests.integration.agent.test_crashes import connected, goes_on
from tests.support.waiting import wait_for


def stands_still(agent: Agent) -> bool:
    client = connect(agent.docker.paths.socket)
    (container,) = client.containers.list(filters={"label": "io.everlease.job"})
    client.close()
    return guards.fenced(oci.container_folder(agent.root / "runtime", str(container.id)))


def test_a_restart_is_announced_and_the_job_goes_on_under_its_fence(world: World) -> None:
    agent = world.agents["a"]
    connected(world, agent)
    job = world.job()
    job.run_on(agent)
    world.gateway.until(lambda g: len(job.lines()) > 5)
    fence = job.fence
    began = time.monotonic()
    assert announce_restart(agent.root) == ""
    assert time.monotonic() - began < 2
    assert world.gateway.restarting == {agent.address}, "it is known before the agent ends"
    assert agent.process is not None
    agent.process.terminate()
    assert agent.ended() == 0
    assert announce_restart(agent.root), "nobody is there to say it any more"
    wait_for(lambda: stands_still(agent), world.gateway.fence_after + 10)
    assert not world.gateway.goodbyes
    connected(world, agent)
    world.gateway.until(lambda g: any(n.kind == "thawed" for n in g.notices))
    goes_on(world, job)
    assert (job.fence, world.gateway.commits) == (fence, []), "nothing was restored"
    assert not [n for n in world.gateway.notices if n.kind == "exited"]
    job.stop(agent)


def test_a_restart_that_the_market_does_not_hear_of_is_not_kept_up(world: World) -> None:
    agent = world.agents["a"]
    connected(world, agent)
    world.gateway.hang_up()
    wait_for(lambda: "trying again" in agent.log(), 20)
    assert "no connection" in announce_restart(agent.root)
    assert agent.process is not None
    agent.process.terminate()
    assert agent.ended() == 0


def test_an_agent_leaves_at_once_though_docker_hangs(world: World) -> None:
    """Its successor starts once it has ended, and has half a minute: it waits for no thread that waits for Docker."""
    agent = world.agents["a"]
    connected(world, agent)
    job = world.job()
    job.run_on(agent)
    world.gateway.until(lambda g: len(job.lines()) > 5)
    daemon = agent.docker.pid()
    assert agent.process is not None
    assert daemon is not None
    os.kill(daemon, signal.SIGSTOP)
    try:
        time.sleep(5)  # for questions to be asked
        assert announce_restart(agent.root) == ""
        agent.process.terminate()
        assert agent.ended(20) == 0
    finally:
        os.kill(daemon, signal.SIGCONT)
    connected(world, agent)
    goes_on(world, job)
    job.stop(agent)
