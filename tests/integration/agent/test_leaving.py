"""The agent leaves in order: with time the last checkpoint is committed and nothing is lost; without, it says so."""

import asyncio
from threading import Thread
from typing import Any

import pytest

from everlease.wire.commands import TakeCheckpoint
from everlease.wire.node import LastWord
from provider_agent.control import DEPARTED, ask
from tests.integration.agent.conftest import Agent, Launch, World
from tests.integration.agent.test_crashes import connected, goes_on
from tests.integration.agent.test_move import numbers


def stop(agent: Agent, within_s: float, timeout_s: float = 60) -> dict[str, Any]:
    request = {"command": "stop", "within_s": within_s, "reason": "the host is shut down"}
    return asyncio.run(ask(agent.root / "agent.sock", request, timeout_s))


def stop_soon(agent: Agent, within_s: float) -> None:
    """Ask for a stop whose answer may never come, because the agent is killed on the way."""

    def asking() -> None:
        try:
            stop(agent, within_s)
        except (OSError, ValueError):
            return

    Thread(target=asking, daemon=True).start()


def runs(world: World, agent: Agent, crash_at: str | None = None) -> Launch:
    connected(world, agent, crash_at)
    job = world.job()
    job.run_on(agent)
    world.gateway.until(lambda g: len(job.lines()) > 5)
    return job


def word(world: World) -> LastWord:
    (found,) = world.gateway.goodbyes[-1].jobs
    return found


def test_with_time_the_job_goes_on_elsewhere_without_a_step_lost_or_done_twice(world: World) -> None:
    agent, other = world.agents["a"], world.agents["b"]
    job = runs(world, agent)
    connected(world, other)
    answer = stop(agent, 20)
    assert answer["ok"], answer
    assert agent.ended() == DEPARTED
    assert agent.address in world.gateway.draining
    said = word(world)
    assert (said.job_id, said.fence, said.still, said.why) == (job.id, job.fence, True, "")
    assert said.head == world.gateway.heads[job.id][1], "the last checkpoint is committed"
    before = job.lines()
    job.run_on(other)
    world.gateway.until(lambda g: len(job.lines()) > 10)
    whole = numbers(before) + numbers(job.lines())
    assert whole == list(range(1, len(whole) + 1))
    job.stop(other)


def test_without_time_it_stands_still_and_says_so(world: World) -> None:
    agent = world.agents["a"]
    job = runs(world, agent)
    taken = TakeCheckpoint(job_id=job.id, fence=job.fence, step=job.step("checkpoint"))
    assert world.gateway.do(agent.address, taken).ok
    head = world.gateway.heads[job.id][1]
    world.gateway.mute_commits = True
    answer = stop(agent, 3)
    assert answer["ok"]
    assert agent.ended() == DEPARTED
    said = word(world)
    assert (said.still, said.head) == (True, head)
    assert "no time" in said.why
    seen = len(job.lines())
    connected(world, agent)
    assert len(job.lines()) <= seen + 60
    world.gateway.mute_commits = False
    goes_on(world, job)
    job.stop(agent)


def test_a_job_that_the_market_moves_in_time_leaves_nothing_to_say(world: World) -> None:
    agent = world.agents["a"]
    job = runs(world, agent)
    stop_soon(agent, 60)
    world.gateway.until(lambda g: agent.address in g.draining)
    hold = TakeCheckpoint(job_id=job.id, fence=job.fence, step=job.step("hold"), hold=True)
    assert world.gateway.do(agent.address, hold).ok
    job.stop(agent)
    world.gateway.until(lambda g: g.goodbyes, 30)
    assert world.gateway.goodbyes[-1].jobs == []
    assert agent.ended() == DEPARTED


def test_a_signal_is_no_departure_so_that_whoever_keeps_the_agent_starts_it_again(world: World) -> None:
    agent = world.agents["a"]
    connected(world, agent)
    assert agent.process is not None
    agent.process.terminate()
    assert agent.ended() == 0
    assert not world.gateway.goodbyes


def test_asked_twice_it_leaves_once(world: World) -> None:
    agent = world.agents["a"]
    runs(world, agent)
    stop_soon(agent, 20)
    assert stop(agent, 20)["ok"]
    assert agent.ended() == DEPARTED
    assert len(world.gateway.goodbyes) == 1


LAST = [f"checkpoint.{step}" for step in ("begun", "dumped", "stored", "requested", "answered")]


@pytest.mark.parametrize("step", ["leave.announced", *LAST, "leave.held", "leave.frozen", "leave.told"])
def test_killed_while_it_leaves_it_comes_back_to_what_it_still_has(world: World, step: str) -> None:
    agent = world.agents["a"]
    job = runs(world, agent, step)
    stop_soon(agent, 20)
    assert agent.ended() == -9
    connected(world, agent)
    goes_on(world, job)
    job.stop(agent)


def test_killed_after_its_goodbye_it_drops_what_another_host_has(world: World) -> None:
    agent, other = world.agents["a"], world.agents["b"]
    job = runs(world, agent, "leave.told")
    connected(world, other)
    stop_soon(agent, 20)
    assert agent.ended() == -9
    before = job.lines()
    job.run_on(other)
    connected(world, agent)
    world.gateway.until(lambda g: len(job.lines()) > 10)
    whole = numbers(before) + numbers(job.lines())
    assert whole == list(range(1, len(whole) + 1))
    world.gateway.until(lambda g: not (agent.root / "jobs" / job.id).exists(), 60)
    job.stop(other)


def test_a_stop_with_a_senseless_time_is_refused(world: World) -> None:
    agent = world.agents["a"]
    connected(world, agent)
    answer = stop(agent, -1)
    assert not answer["ok"]
    assert "within_s" in answer["error"]
    agent.kill()
