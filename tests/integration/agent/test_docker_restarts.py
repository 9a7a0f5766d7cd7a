"""Docker stopped, killed and started anew under a job: the host's fault, never an exit of the program."""

import json
import sqlite3
import time
import uuid
from contextlib import closing

import pytest

from everlease.wire.commands import Restart, Stop, TakeCheckpoint
from everlease.wire.node import Decline, JobNotice
from provider_agent.runtime.daemon import connect
from provider_agent.runtime.daemon_identity import boot_id
from tests.integration.agent.conftest import Agent, Launch, World
from tests.integration.agent.test_crashes import connected
from tests.integration.agent.test_move import numbers

QUIT_AT_SIGTERM = """
import signal, sys, os, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
for step in range(1, 100000):
    os.write(1, f"step {step}\\n".encode())
    time.sleep(0.05)
"""


def ended(world: World, job: Launch, seconds: float = 90) -> JobNotice:
    notice: JobNotice = world.gateway.until(
        lambda g: next((n for n in g.notices if n.kind == "exited" and n.job_id == job.id), None), seconds
    )
    return notice


def restarted(world: World, agent: Agent, job: Launch) -> list[str]:
    """The marketplace's answer to a host's fault, and the job goes on from its last checkpoint; what it says then."""
    seq, head = world.gateway.heads.get(job.id, (0, None))
    said = len(job.lines())
    restart = Restart(
        job_id=job.id,
        fence=job.fence,
        step=job.step("restart"),
        checkpoint=head,
        checkpoint_seq=seq,
        checkpoint_node=world.gateway.authors.get(head or ""),
    )
    done = world.gateway.do(agent.address, restart)
    assert done.ok, done
    world.gateway.until(lambda g: len(job.lines()) > said + 5)
    return job.lines()[said:]


@pytest.mark.parametrize("way", ["stop", "kill"])
def test_a_daemon_that_is_started_anew_ends_no_program(world: World, way: str) -> None:
    """The program ends with 0 at SIGTERM, as well-behaved ones do: still no success."""
    agent = world.agents["a"]
    connected(world, agent)
    job = world.job(QUIT_AT_SIGTERM)
    job.run_on(agent)
    world.gateway.until(lambda g: len(job.lines()) > 5)
    taken = TakeCheckpoint(job_id=job.id, fence=job.fence, step=job.step("checkpoint"))
    assert world.gateway.do(agent.address, taken).ok
    getattr(agent.docker, way)()
    time.sleep(3)
    assert not [n for n in world.gateway.notices if n.kind == "exited"], "no answer is not an exit"
    agent.docker.start().close()
    notice = ended(world, job)
    before = numbers(job.lines())  # only now is all there that was said before the checkpoint
    assert "started anew" in notice.data["host_fault"]
    assert not any(commit.final for commit in world.gateway.commits)
    after = numbers(restarted(world, agent, job))
    assert 1 < after[0] <= before[-1] + 1, "it goes on from the checkpoint"
    assert after == list(range(after[0], after[0] + len(after))), "nothing is taken for a repeat"
    job.stop(agent)


@pytest.mark.parametrize("what", ["Docker daemon was started anew", "the host was started anew"])
def test_agent_and_docker_started_anew_together(world: World, what: str) -> None:
    """As after a power cut: what the journal says of the daemon tells the agent that is started next.

    A reboot shows in the boot's id, which the journal is made to have from another boot.
    """
    agent = world.agents["a"]
    connected(world, agent)
    job = world.job(QUIT_AT_SIGTERM)
    job.run_on(agent)
    world.gateway.until(lambda g: len(job.lines()) > 5)
    agent.kill()
    agent.docker.kill()
    if "Docker" not in what:
        with closing(sqlite3.connect(agent.root / "journal.db")) as journal, journal:
            journal.execute("UPDATE job SET record = replace(record, ?, ?)", (boot_id(), str(uuid.uuid4())))
    connected(world, agent)
    assert what in ended(world, job).data["host_fault"]
    restarted(world, agent, job)
    job.stop(agent)


def test_the_facts_follow_the_tools_beneath_a_running_agent(world: World) -> None:
    """The trial's record is made to be of another Docker, as after an update; no job is here."""
    agent = world.agents["a"]
    connected(world, agent)
    session = world.gateway.nodes[agent.address]
    assert session.hello.facts["runtime"]["process_mode"]
    record = agent.root / "runtime" / "trial.json"
    kept = json.loads(record.read_text())
    agent.docker.stop()
    record.write_text(json.dumps(kept | {"key": kept["key"] | {"docker": "19.03.1"}}))
    agent.docker.start().close()
    told = world.gateway.until(lambda g: len(found := g.facts.get(agent.address, [])) > 1 and found, 120)
    assert [facts["runtime"]["process_mode"] for facts in told] == [False, True]
    assert "no trial" in told[0]["runtime"]["reason"]
    assert json.loads(record.read_text())["key"] == kept["key"]
    assert world.gateway.nodes[agent.address] is session, "the connection lived on"


def test_an_agent_killed_once_it_has_judged_keeps_its_verdict(world: World) -> None:
    agent = world.agents["a"]
    connected(world, agent, "exit.judged")
    job = world.job(QUIT_AT_SIGTERM)
    job.run_on(agent)
    world.gateway.until(lambda g: len(job.lines()) > 5)
    agent.docker.stop()
    agent.docker.start().close()
    assert agent.ended() == -9
    connected(world, agent)
    assert "started anew" in ended(world, job).data["host_fault"]
    job.stop(agent)


def test_a_program_that_ends_by_itself_ends(world: World) -> None:
    agent = world.agents["a"]
    connected(world, agent)
    job = world.job("print('done', flush=True); raise SystemExit(3)")
    job.run_on(agent)
    notice = ended(world, job)
    assert (notice.data["code"], "host_fault" in notice.data) == (3, False)
    job.stop(agent)


def test_a_container_that_somebody_removed_leaves_no_guard_against_the_next(world: World) -> None:
    """The next one of the same fence has the same outer cgroup."""
    agent = world.agents["a"]
    connected(world, agent)
    job = world.job()
    job.run_on(agent)
    world.gateway.until(lambda g: len(job.lines()) > 5)
    taken = TakeCheckpoint(job_id=job.id, fence=job.fence, step=job.step("checkpoint"))
    assert world.gateway.do(agent.address, taken).ok
    folders = agent.root / "runtime" / "containers"
    (old,) = [path.parent for path in folders.glob("*/outer.json")]
    client = connect(agent.docker.paths.socket)
    client.api.remove_container(old.name, force=True)
    client.close()
    assert "not on its host any more" in ended(world, job).data["host_fault"]
    restarted(world, agent, job)
    assert not old.exists()
    (new,) = [path.parent for path in folders.glob("*/outer.json")]
    assert new != old
    job.stop(agent)


def test_docker_that_does_not_come_back_gives_the_job_up_and_cleans_up_once_it_does(world: World) -> None:
    """A restart in place fails, the job moves, and no second copy of it runs, whenever Docker is back."""
    agent, other = world.agents["a"], world.agents["b"]
    agent.environment["EVERLEASE_AGENT_DOCKER_AWAY_S"] = "4"
    connected(world, agent)
    connected(world, other)
    job = world.job(QUIT_AT_SIGTERM)
    job.run_on(agent)
    world.gateway.until(lambda g: len(job.lines()) > 5)
    taken = TakeCheckpoint(job_id=job.id, fence=job.fence, step=job.step("checkpoint"))
    assert world.gateway.do(agent.address, taken).ok
    agent.docker.stop()
    assert ended(world, job).data["host_fault"] == "the host's Docker daemon does not come back"
    fence, head = job.fence, world.gateway.heads[job.id]
    restart = Restart(job_id=job.id, fence=fence, step="restart", checkpoint=head[1], checkpoint_seq=head[0])
    failed = world.gateway.do(agent.address, restart)
    assert not failed.ok
    assert failed.result["host_fault"]
    refused = world.gateway.call(agent.address, job.call(agent))
    assert isinstance(refused, Decline), "a host without Docker takes no job"
    stop = Stop(job_id=job.id, fence=fence, step="stop", grace_s=0)
    assert not world.gateway.do(agent.address, stop).ok
    before = numbers(job.lines())
    job.run_on(other)
    world.gateway.until(lambda g: len(job.lines()) > 5)
    assert 1 < numbers(job.lines())[0] <= before[-1] + 1, "it goes on from the checkpoint"
    client = agent.docker.start()
    world.gateway.until(lambda g: not client.containers.list(all=True, filters={"label": "io.everlease.job"}))
    world.gateway.until(lambda g: not (agent.root / "jobs" / job.id).exists())
    client.close()
    assert len(job.lines(fence)) == len(before), "nothing ran there meanwhile"
    seen = len(job.lines())
    world.gateway.until(lambda g: len(job.lines()) > seen + 5)
    assert agent.log().count("Traceback") == 0
    job.stop(other)
